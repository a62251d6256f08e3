// The CT in three planes and in space, drawn by NiiVue; the findings' mask and markers over it.
// NiiVue counts millimetres to the right, front and top (RAS), the report to the left, back and top (LPS).

import { DRAG_MODE, Niivue, NVImage, SLICE_TYPE, type NiiVueLocation } from '@niivue/niivue'
import { Markers } from './markers'
import { colour, type Finding, type Mm } from './report'

export const VIEWS = {
  all: SLICE_TYPE.MULTIPLANAR,
  axial: SLICE_TYPE.AXIAL,
  coronal: SLICE_TYPE.CORONAL,
  sagittal: SLICE_TYPE.SAGITTAL,
  volume: SLICE_TYPE.RENDER,
}
export type ViewName = keyof typeof VIEWS

/** Lowest and highest HU shown. */
export const WINDOWS: Record<string, [number, number]> = {
  lung: [-1350, 150],
  'soft tissue': [-160, 240],
  bone: [-450, 1050],
  wide: [-1000, 1000],
}

/** What dragging with the main button does. */
export const TOOLS = {
  point: DRAG_MODE.crosshair,
  length: DRAG_MODE.measurement,
  angle: DRAG_MODE.angle,
  move: DRAG_MODE.pan,
  window: DRAG_MODE.windowing,
}
export type Tool = keyof typeof TOOLS

export interface Place {
  lps: Mm
  slice: number
  hu: number
}

const ZOOM = 3
const OPACITY = 0.5

const QUARTERS: { sliceType: SLICE_TYPE; position: [number, number, number, number] }[] = [
  { sliceType: SLICE_TYPE.AXIAL, position: [0, 0, 0.498, 0.498] },
  { sliceType: SLICE_TYPE.CORONAL, position: [0.502, 0, 0.498, 0.498] },
  { sliceType: SLICE_TYPE.SAGITTAL, position: [0, 0.502, 0.498, 0.498] },
  { sliceType: SLICE_TYPE.RENDER, position: [0.502, 0.502, 0.498, 0.498] },
]

const flip = ([x, y, z]: Mm): Mm => [-x, -y, z]

class Canvas extends Niivue {
  drawn: () => void = () => {}
  held = 0

  // Drawing is what costs: NiiVue draws after every single change.
  override drawScene(): string | void {
    if (this.held) return
    const said = super.drawScene()
    this.drawn()
    return said
  }

  // The page has its own keys.
  override keyDownListener(): void {}
  override keyUpListener(): void {}
}

export class Scene {
  onPlace: (place: Place) => void = () => {}
  onWindow: (low: number, high: number) => void = () => {}
  onMeasured: (text: string) => void = () => {}

  private readonly nv: Canvas
  private readonly markers: Markers
  private mask: NVImage | undefined
  private shown: Finding[] = []

  constructor(canvas: HTMLCanvasElement, overlay: SVGSVGElement) {
    this.nv = new Canvas({
      backColor: [0, 0, 0, 1],
      crosshairColor: [0.36, 0.66, 1, 0.7],
      crosshairWidth: 1,
      crosshairWidthUnit: 'mm',
      crosshairGap: 12,
      show3Dcrosshair: true,
      isRadiologicalConvention: true,
      sagittalNoseLeft: true,
      isOrientationTextVisible: true,
      dragMode: DRAG_MODE.windowing,
      dragAndDropEnabled: false,
      measureLineColor: [1, 0.8, 0.2, 1],
      measureTextColor: [1, 0.8, 0.2, 1],
      fontColor: [0.75, 0.8, 0.86, 1],
      clipPlaneColor: [0, 0, 0, 0],
      isResizeCanvas: true,
      logLevel: 'error',
    })
    this.markers = new Markers(this.nv, overlay)
    this.nv.drawn = () => this.markers.draw()
    this.nv.onLocationChange = (at) => this.moved(at as NiiVueLocation)
    this.nv.onIntensityChange = () => this.tellWindow()
    this.nv.onMeasurementCompleted = (one) => this.onMeasured(`${one.distance.toFixed(1)} mm`)
    this.nv.onAngleCompleted = (one) => this.onMeasured(`${one.angle.toFixed(0)}°`)
    this.canvas = canvas
  }

  private readonly canvas: HTMLCanvasElement

  /** Get hold of the graphics card; fails where there is no WebGL 2. */
  async start(): Promise<void> {
    if (!document.createElement('canvas').getContext('webgl2')) throw new Error('this browser has no WebGL 2')
    await this.nv.attachToCanvas(this.canvas)
    this.view('all')
  }

  /** Draw a study; nothing of it where it is left while its files are unpacked. */
  async show(
    volume: ArrayBuffer,
    mask: ArrayBuffer | undefined,
    findings: Finding[],
    signal: AbortSignal,
  ): Promise<void> {
    const [cal_min, cal_max] = WINDOWS.lung!
    const ct = await NVImage.loadFromUrl({ url: volume, name: 'volume.nii.gz', colormap: 'gray', cal_min, cal_max })
    if (signal.aborted) return
    const opacity = this.markers.visible ? OPACITY : 0
    const marked = mask && (await NVImage.loadFromUrl({ url: mask, name: 'mask.nii.gz', opacity }))
    if (signal.aborted) return
    this.mask = marked
    this.shown = findings
    this.paint()
    this.once(() => {
      this.nv.addVolume(ct)
      if (this.mask) this.nv.addVolume(this.mask)
      this.zoom(false)
      this.nv.setRenderAzimuthElevation(180, 10)
      this.nv.setScale(1.25)
    })
    this.tellWindow()
  }

  clear(): void {
    this.once(() => {
      for (const volume of [...this.nv.volumes]) this.nv.removeVolume(volume)
      this.nv.clearAllMeasurements()
      this.markers.set([], undefined)
    })
  }

  /** Several changes, one drawing. */
  once(change: () => void): void {
    this.nv.held += 1
    try {
      change()
    } finally {
      this.nv.held -= 1
    }
    if (this.nv.volumes.length) this.nv.drawScene()
  }

  /** Which findings have an outline and a marker, and which one is looked at. */
  findings(shown: Finding[], selected: number | undefined, rejected: Set<number>): void {
    const before = this.shown.map((finding) => finding.id).join()
    this.shown = shown
    this.markers.set(shown, selected, rejected)
    if (this.mask && before !== shown.map((finding) => finding.id).join()) {
      this.paint()
      this.nv.updateGLVolume() // draws, too
    } else if (!this.nv.held) {
      this.markers.draw()
    }
  }

  goTo(lps: Mm): void {
    if (!this.nv.volumes.length) return
    this.nv.scene.crosshairPos = this.nv.mm2frac(flip(lps))
    const front = this.nv.scene.crosshairPos[1]! - 0.5
    // The front of the chest is cut away down to the crosshair, or the body's surface would hide everything.
    this.once(() => {
      this.nv.setClipPlane([front, 180, 0])
      if (this.zoomed) this.zoom(true)
    })
    this.tellPlace()
  }

  step(slices: number): void {
    const axis = this.nv.opts.sliceType === VIEWS.coronal ? 1 : this.nv.opts.sliceType === VIEWS.sagittal ? 0 : 2
    const move: Mm = [0, 0, 0]
    move[axis] = slices
    this.nv.moveCrosshairInVox(...move)
    this.tellPlace()
  }

  view(name: ViewName): void {
    this.once(() => {
      if (name === 'all') this.nv.setCustomLayout(QUARTERS)
      else this.nv.clearCustomLayout()
      this.nv.setSliceType(VIEWS[name])
    })
  }

  tool(name: Tool): void {
    this.nv.opts.dragModePrimary = TOOLS[name]
  }

  window(low: number, high: number): void {
    const ct = this.nv.volumes[0]
    if (!ct) return
    ct.cal_min = low
    ct.cal_max = high
    this.nv.updateGLVolume()
    this.tellWindow()
  }

  marks(wanted: boolean): void {
    this.markers.visible = wanted
    if (this.mask) this.mask.opacity = wanted ? OPACITY : 0
    this.nv.updateGLVolume()
  }

  get zoomed(): boolean {
    return this.nv.scene.pan2Dxyzmm[3]! > 1
  }

  /** The planes larger, with the crosshair in the middle. */
  zoom(wanted: boolean): void {
    this.nv.opts.crosshairWidth = wanted ? 1 / ZOOM : 1
    if (!wanted) {
      this.nv.setPan2Dxyzmm([0, 0, 0, 1])
      return
    }
    const here = this.nv.frac2mm(this.nv.scene.crosshairPos)
    const middle = this.nv.frac2mm([0.5, 0.5, 0.5])
    const pan = [0, 1, 2].map((axis) => middle[axis]! - ZOOM * here[axis]!)
    this.nv.setPan2Dxyzmm([pan[0]!, pan[1]!, pan[2]!, ZOOM])
  }

  clearMeasurements(): void {
    this.nv.clearAllMeasurements()
    this.nv.drawScene()
  }

  private paint(): void {
    if (!this.mask) return
    const ids = [0, ...this.shown.map((finding) => finding.id)]
    const rgb = ids.map((id) => colour(id))
    this.mask.setColormapLabel({
      R: rgb.map(([r]) => r),
      G: rgb.map(([, g]) => g),
      B: rgb.map(([, , b]) => b),
      A: ids.map((id) => (id === 0 ? 0 : 255)),
      I: ids,
    })
  }

  private moved(at: NiiVueLocation): void {
    const ct = this.nv.volumes[0]
    if (!ct) return
    const ras: Mm = [at.mm[0]!, at.mm[1]!, at.mm[2]!]
    this.onPlace({ lps: flip(ras), slice: sliceAt(ct, ras), hu: at.values[0]?.value ?? NaN })
  }

  private tellPlace(): void {
    this.nv.createOnLocationChange()
  }

  private tellWindow(): void {
    const ct = this.nv.volumes[0]
    if (ct) this.onWindow(ct.cal_min!, ct.cal_max!)
  }
}

/** Index of the slice of the file at a point; the axes of a volume are perpendicular. */
function sliceAt(volume: NVImage, ras: Mm): number {
  const affine = volume.hdr!.affine
  let along = 0
  let length = 0
  for (const axis of [0, 1, 2]) {
    const step = affine[axis]![2]!
    along += (ras[axis]! - affine[axis]![3]!) * step
    length += step * step
  }
  return Math.round(along / length)
}
