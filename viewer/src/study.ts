// A finished study: its picture, its panel, its files, and the controls that join them.

import { ask, bytes, json, needsToken, Problem } from './api'
import { $, announce, choice, make, only } from './dom'
import { Panel } from './panel'
import { place, type Job, type Report, type ServerInfo } from './report'
import { Reviewer } from './review'
import { Scene, WINDOWS, type Place, type Tool, type ViewName } from './scene'

const FILES: Record<string, string> = {
  report_html: 'Report',
  report: 'report.json',
  findings_csv: 'findings.csv',
  mask: 'mask.nii.gz',
  volume: 'volume.nii.gz',
  export: 'Everything with your review (.zip)',
}
const CUSTOM = 'as dragged'
const FETCHED_MS = 60_000 // how long a file stays in memory after it was handed to the browser

const views: Record<ViewName, { text: string; title: string }> = {
  all: { text: 'All', title: 'Three planes and the volume (1)' },
  axial: { text: 'Axial', title: 'Axial (2)' },
  coronal: { text: 'Coronal', title: 'Coronal (3)' },
  sagittal: { text: 'Sagittal', title: 'Sagittal (4)' },
  volume: { text: '3-D', title: 'Volume, cut open at the crosshair (5)' },
}
const tools: Record<Tool, { text: string; title: string }> = {
  point: { text: 'Point', title: 'Move the crosshair (x)' },
  length: { text: 'Length', title: 'Measure a length (l)' },
  angle: { text: 'Angle', title: 'Measure an angle: two lines (g)' },
  move: { text: 'Move', title: 'Move the picture; the wheel zooms (v)' },
  window: { text: 'Window', title: 'Drag: brightness and contrast; also with the right button (w)' },
}

export class Study {
  readonly panel = new Panel()
  private readonly scene = new Scene($('canvas'), $('overlay'))
  private started: Promise<void> | undefined
  private report: Report | undefined
  private reviewer: Reviewer | undefined
  private readonly setView: (name: ViewName) => void
  private readonly setTool: (name: Tool) => void

  constructor(private readonly server: ServerInfo) {
    this.setView = choice($('views'), views, (name) => this.scene.view(name))
    this.setTool = choice($('tools'), tools, (name) => this.scene.tool(name))
    this.setView('all')
    this.setTool('point')
    for (const name of Object.keys(WINDOWS)) $('windows').append(make('option', {}, name))
    $('windows').append(make('option', { disabled: true }, CUSTOM))
    $('windows').addEventListener('change', () => this.scene.window(...WINDOWS[$('windows').value]!))
    $('zoom').addEventListener('click', () => this.zoom())
    $('marks').addEventListener('click', () => this.marks())
    $('clear').addEventListener('click', () => {
      this.scene.clearMeasurements()
      $('clear').hidden = true
    })
    this.scene.onPlace = (at) => this.tellPlace(at)
    this.scene.onWindow = (low, high) => this.tellWindow(low, high)
    this.scene.onMeasured = (text) => {
      $('clear').hidden = false
      $('place').append(`  measured ${text}`)
    }
    this.panel.onChange = (jump) => this.change(jump)
  }

  async open(job: Job, signal: AbortSignal): Promise<void> {
    // Until both are there, the page that waits stays: a verdict given meanwhile would be one on the study before.
    const [report, reviewer] = await Promise.all([
      json<Report>(job.links.report!, { signal }),
      Reviewer.open(job.links.review!, signal, (text, good) => signal.aborted || tellSaved(text, good)),
    ])
    if (signal.aborted) return
    this.report = report
    this.reviewer = reviewer
    this.scene.clear()
    $('place').textContent = ''
    $('clear').hidden = true
    $('study-title').textContent = `Study ${job.number}`
    this.showFiles(job)
    tellSaved(reviewer.state, true)
    this.panel.show(report, reviewer, this.server.comment_chars)
    this.setLoading('Loading the images')
    only('study')
    $('study-title').focus()
    announce('Loading the images') // once, not at every percent
    try {
      await this.load(job, signal)
    } catch (error) {
      if (signal.aborted) return
      const why = error instanceof Error ? error.message : String(error)
      const said = `The images cannot be shown: ${why}. The findings and the report are still here.`
      this.setLoading(said)
      announce(said)
      return
    }
    if (signal.aborted) return
    $('zoom').setAttribute('aria-pressed', String(this.scene.zoomed))
    this.setLoading('')
    const { selected, shown } = this.panel
    if (selected) this.change(true) // chosen while the images were loading
    else if (shown[0]) this.panel.select(shown[0])
  }

  /** Store what has been said, before something else is shown. */
  async close(): Promise<void> {
    await this.reviewer?.flush()
  }

  key(name: string): boolean {
    const actions: Record<string, () => void> = {
      n: () => this.panel.step(1),
      p: () => this.panel.step(-1),
      a: () => this.panel.judge('accepted'),
      r: () => this.panel.judge('rejected'),
      u: () => this.panel.judge('open'),
      c: () => $('comment').focus(),
      z: () => this.zoom(),
      o: () => this.marks(),
      PageUp: () => this.scene.step(1),
      PageDown: () => this.scene.step(-1),
    }
    Object.keys(views).forEach((view, at) => {
      actions[String(at + 1)] = () => this.view(view as ViewName)
    })
    for (const [tool, letter] of Object.entries({ point: 'x', length: 'l', angle: 'g', move: 'v', window: 'w' })) {
      actions[letter] = () => this.tool(tool as Tool)
    }
    Object.keys(WINDOWS).forEach((window, at) => {
      actions[`F${at + 6}`] = () => this.scene.window(...WINDOWS[window]!)
    })
    if (document.activeElement === $('canvas')) {
      actions.ArrowUp = () => this.scene.step(1)
      actions.ArrowDown = () => this.scene.step(-1)
    }
    actions[name]?.()
    return name in actions
  }

  private async load(job: Job, signal: AbortSignal): Promise<void> {
    this.started ??= this.scene.start()
    await this.started
    const progress = (done: number) => this.setLoading(`Loading the images, ${Math.round(100 * done)} %`)
    const [volume, mask] = await Promise.all([
      bytes(job.links.volume!, signal, progress),
      bytes(job.links.mask!, signal, () => {}).catch(ifMissing),
    ])
    if (signal.aborted) return
    await this.scene.show(volume, mask, this.panel.shown, signal)
  }

  private change(jump: boolean): void {
    const { shown, selected } = this.panel
    this.scene.once(() => {
      this.scene.findings(shown, selected?.id, this.reviewer?.rejected ?? new Set())
      if (jump && selected) this.scene.goTo(selected.center_lps)
    })
  }

  private view(name: ViewName): void {
    this.setView(name)
    this.scene.view(name)
  }

  private tool(name: Tool): void {
    this.setTool(name)
    this.scene.tool(name)
  }

  private zoom(): void {
    this.scene.zoom(!this.scene.zoomed)
    $('zoom').setAttribute('aria-pressed', String(this.scene.zoomed))
  }

  private marks(): void {
    const wanted = $('marks').getAttribute('aria-pressed') !== 'true'
    $('marks').setAttribute('aria-pressed', String(wanted))
    this.scene.marks(wanted)
  }

  private showFiles(job: Job): void {
    $('file-problem').hidden = true
    const links = Object.entries(FILES).flatMap(([key, text]) => {
      const path = job.links[key]
      if (!path) return []
      const link = make('a', { href: path, target: '_blank', rel: 'noopener' }, text)
      if (key !== 'report_html') link.download = path.split('/').at(-1)!
      // The archive holds the review, and the browser follows a link without the token.
      if (key === 'export' || needsToken()) {
        link.addEventListener('click', (event) => {
          event.preventDefault()
          void this.openFile(link)
        })
      }
      return [make('li', {}, link)]
    })
    $('files-list').replaceChildren(...links)
  }

  /** Store what has been said, then follow a link; with a token, the file is fetched here and opened from memory. */
  private async openFile(link: HTMLAnchorElement): Promise<void> {
    const problem = $('file-problem')
    problem.hidden = true
    try {
      await this.close()
      const once = link.cloneNode() as HTMLAnchorElement // which is not listened to
      if (needsToken()) {
        once.href = URL.createObjectURL(await (await ask(link.href)).blob())
        setTimeout(() => URL.revokeObjectURL(once.href), FETCHED_MS)
      }
      once.click()
    } catch (error) {
      problem.textContent = error instanceof Error ? error.message : String(error)
      problem.hidden = false
    }
  }

  private setLoading(text: string): void {
    $('loading').textContent = text
  }

  private tellPlace({ lps, slice, hu }: Place): void {
    const text = `${place(lps)}  slice ${slice + 1} of ${this.report?.input.shape_zyx[0]}  ${Math.round(hu)} HU`
    $('place').textContent = text
    $('place').dataset.lps = lps.join()
  }

  private tellWindow(low: number, high: number): void {
    const preset = Object.keys(WINDOWS).find((name) => WINDOWS[name]![0] === low && WINDOWS[name]![1] === high)
    $('windows').value = preset ?? CUSTOM
    $('window-values').textContent = `C ${Math.round((low + high) / 2)} W ${Math.round(high - low)}`
  }
}

/** A report of the command line may have been written without a mask. */
function ifMissing(error: unknown): undefined {
  if (!(error instanceof Problem) || error.status !== 404) throw error
  document.querySelector('#files-list a[download^=mask]')?.parentElement?.remove()
}

function tellSaved(text: string, good: boolean): void {
  $('saved').textContent = text
  $('saved').classList.toggle('problem', !good)
}
