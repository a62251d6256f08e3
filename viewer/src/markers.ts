// A ring with its number around every finding that the shown slices cut, over NiiVue's canvas.

import { SLICE_TYPE, type Niivue } from '@niivue/niivue'
import { css, type Finding } from './report'

const SVG = 'http://www.w3.org/2000/svg'
const PLANES = [
  { type: SLICE_TYPE.AXIAL, normal: 2, across: 0 },
  { type: SLICE_TYPE.CORONAL, normal: 1, across: 0 },
  { type: SLICE_TYPE.SAGITTAL, normal: 0, across: 1 },
]

export class Markers {
  visible = true
  private findings: Finding[] = []
  private selected: number | undefined
  private rejected = new Set<number>()

  constructor(
    private readonly nv: Niivue,
    private readonly overlay: SVGSVGElement,
  ) {}

  set(findings: Finding[], selected: number | undefined, rejected = new Set<number>()): void {
    this.findings = findings
    this.selected = selected
    this.rejected = rejected
  }

  draw(): void {
    this.overlay.replaceChildren()
    const ct = this.nv.volumes[0]
    if (!this.visible || !ct?.dimsRAS || !ct.pixDimsRAS) return
    const extent = [0, 1, 2].map((axis) => ct.dimsRAS![axis + 1]! * ct.pixDimsRAS![axis + 1]!)
    const here = this.nv.scene.crosshairPos
    for (const finding of this.findings) {
      const [l, p, s] = finding.center_lps
      const at = this.nv.mm2frac([-l, -p, s])
      for (const { type, normal, across } of PLANES) {
        if (!this.nv.screenSlices.some((tile) => tile.axCorSag === type)) continue
        const away = Math.abs(at[normal]! - here[normal]!) * extent[normal]!
        if (away > Math.max(finding.diameter_mm, ct.pixDimsRAS[normal + 1]!) / 2) continue
        const centre: [number, number, number] = [at[0]!, at[1]!, at[2]!]
        centre[normal] = here[normal]!
        const edge: [number, number, number] = [...centre]
        edge[across]! += (finding.diameter_mm / 2 + 3) / extent[across]!
        const from = this.nv.frac2canvasPosWithTile(centre, type)
        const to = this.nv.frac2canvasPosWithTile(edge, type)
        if (from && to) this.ring(finding, from.pos, Math.abs(to.pos[0]! - from.pos[0]!))
      }
    }
  }

  private ring(finding: Finding, canvas: number[], canvasRadius: number): void {
    const [x, y, radius] = [canvas[0]!, canvas[1]!, canvasRadius].map((pixels) => pixels / this.nv.uiData.dpr!) as [
      number,
      number,
      number,
    ]
    const group = document.createElementNS(SVG, 'g')
    group.style.color = css(finding.id)
    group.classList.toggle('selected', finding.id === this.selected)
    group.classList.toggle('rejected', this.rejected.has(finding.id))
    const circle = document.createElementNS(SVG, 'circle')
    const text = document.createElementNS(SVG, 'text')
    for (const [name, value] of Object.entries({ cx: x, cy: y, r: Math.max(radius, 8) })) {
      circle.setAttribute(name, value.toFixed(1))
    }
    text.setAttribute('x', (x + Math.max(radius, 8) * 0.75 + 3).toFixed(1))
    text.setAttribute('y', (y - Math.max(radius, 8) * 0.75 - 2).toFixed(1))
    text.textContent = String(finding.id)
    group.append(circle, text)
    this.overlay.append(group)
  }
}
