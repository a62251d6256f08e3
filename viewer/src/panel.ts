// The list of findings beside the picture, what is known about the chosen one, and a person's word on it.

import { $, announce, choice, make } from './dom'
import { css, percent, place, type Finding, type Report, type Verdict } from './report'
import type { Reviewer } from './review'

const VERDICTS: Record<Verdict, { text: string; title: string }> = {
  accepted: { text: 'Accept', title: 'It is a nodule (a)' },
  rejected: { text: 'Reject', title: 'It is none (r)' },
  open: { text: 'Open', title: 'Not decided (u)' },
}
const SIGNS: Record<Verdict, string> = { accepted: '✓', rejected: '✕', open: '' }

export class Panel {
  /** Told when other findings are shown, or another one is chosen. `jump` is set where the picture should go there. */
  onChange: (jump: boolean) => void = () => {}
  selected: Finding | undefined
  shown: Finding[] = []

  private report: Report | undefined
  private reviewer: Reviewer | undefined
  private readonly setVerdict: (value: Verdict) => void

  constructor() {
    this.setVerdict = choice($('verdict'), VERDICTS, (verdict) => this.judge(verdict))
    $('threshold').addEventListener('input', () => this.filter())
    $('previous').addEventListener('click', () => this.step(-1))
    $('next').addEventListener('click', () => this.step(1))
    $('comment').addEventListener('input', () => {
      if (this.selected) this.reviewer?.remark(this.selected.id, $('comment').value)
    })
    $('study-comment').addEventListener('input', () => this.reviewer?.remarkOnStudy($('study-comment').value))
  }

  show(report: Report, reviewer: Reviewer, commentChars: number): void {
    this.report = report
    this.reviewer = reviewer
    this.selected = undefined
    this.shown = []
    const slider = $('threshold')
    slider.min = String(Math.floor(report.threshold * 100) / 100)
    slider.value = slider.min
    for (const id of ['comment', 'study-comment'] as const) $(id).maxLength = commentChars
    $('study-comment').value = reviewer.comment
    showPatient(report)
    this.filter()
  }

  /** The finding's verdict by a key or a button. */
  judge(verdict: Verdict): void {
    const finding = this.selected
    if (!finding || !this.reviewer) return
    this.reviewer.judge(finding.id, verdict)
    this.setVerdict(verdict)
    this.list()
    announce(`Finding ${finding.id}: ${verdict}`)
    this.onChange(false)
  }

  /** The next finding (1) or the one before (-1), round and round. */
  step(by: number): void {
    if (!this.shown.length) return
    const at = this.selected ? this.shown.indexOf(this.selected) : by > 0 ? -1 : 0
    this.select(this.shown[(at + by + this.shown.length) % this.shown.length]!)
  }

  select(finding: Finding): void {
    this.selected = finding
    this.detail()
    this.list()
    $('findings').querySelector('[aria-current]')?.scrollIntoView({ block: 'nearest' })
    announce(describe(finding, this.report!))
    this.onChange(true)
  }

  private filter(): void {
    const report = this.report!
    const lowest = Number($('threshold').value)
    // At the slider's lower end everything is shown, whatever the report's threshold was rounded to.
    const all = $('threshold').value === $('threshold').min
    this.shown = report.findings
      .filter((finding) => all || finding.p_nodule >= lowest)
      .sort((a, b) => b.p_nodule - a.p_nodule || a.id - b.id)
    const total = report.findings.length
    $('threshold').setAttribute('aria-valuetext', `${percent(lowest)}, ${this.shown.length} of ${total} shown`)
    $('threshold-value').textContent = lowest.toFixed(2)
    $('count').textContent = total ? `${this.shown.length} of ${total} shown` : ''
    $('slider').hidden = $('walk').hidden = total === 0
    const none = $('none')
    none.hidden = this.shown.length > 0
    none.textContent = total
      ? `None of the ${total} findings reaches ${lowest.toFixed(2)}.`
      : `No findings: nothing in this CT reaches the probability of ${report.threshold.toFixed(2)}. That does not rule out a nodule.`
    $('heads').hidden = this.shown.length === 0
    if (this.selected && !this.shown.includes(this.selected)) this.selected = undefined
    this.detail()
    this.list()
    this.onChange(false)
  }

  private list(): void {
    const focused = (document.activeElement as HTMLElement | null)?.dataset.finding
    $('findings').replaceChildren(...this.shown.map((finding) => this.row(finding)))
    if (focused) $('findings').querySelector<HTMLElement>(`[data-finding="${focused}"]`)?.focus()
  }

  private row(finding: Finding): HTMLLIElement {
    const verdict = this.reviewer!.of(finding.id).verdict
    // What the heads above say to the eye, each cell says to the ear.
    const cell = (name: string, value: string) =>
      make('span', {}, make('span', { className: 'unseen' }, `${name} `), make('span', { className: 'value' }, value))
    const number = cell('Finding', String(finding.id))
    number.className = 'number'
    number.style.backgroundColor = css(finding.id)
    const button = make(
      'button',
      { type: 'button', className: verdict },
      number,
      cell(', nodule', percent(finding.p_nodule)),
      cell(', diameter', `${finding.diameter_mm.toFixed(1)} mm`),
      cell(', malignancy', percent(finding.p_malignant)),
      cell(', slice', String(finding.slice_index + 1)),
      make(
        'span',
        { className: 'sign' },
        make('span', { className: 'unseen' }, `, ${verdict}`),
        make('span', { ariaHidden: 'true' }, SIGNS[verdict]),
      ),
    )
    button.dataset.finding = String(finding.id)
    if (finding === this.selected) button.setAttribute('aria-current', 'true')
    button.addEventListener('click', () => this.select(finding))
    return make('li', {}, button)
  }

  private detail(): void {
    const finding = this.selected
    $('detail').hidden = !finding
    if (!finding) return
    $('detail-title').textContent = `Finding ${finding.id}`
    const slices = this.report!.input.shape_zyx[0]
    const image = finding.instance_number === null ? '' : `, image ${finding.instance_number}`
    const figures: Record<string, string> = {
      Centre: place(finding.center_lps),
      Slice: `${finding.slice_index + 1} of ${slices}${image}`,
      Volume: `${finding.volume_mm3.toFixed(0)} mm³`,
      Density: `${finding.mean_hu.toFixed(0)} HU on average`,
    }
    if (finding.long_axis_mm !== null && finding.short_axis_mm !== null) {
      figures.Axes = `${finding.long_axis_mm.toFixed(1)} × ${finding.short_axis_mm.toFixed(1)} mm`
    }
    const pairs = Object.entries(figures).map(([name, value]) => [make('dt', {}, name), make('dd', {}, value)])
    $('figures').replaceChildren(...pairs.flat())
    const review = this.reviewer!.of(finding.id)
    this.setVerdict(review.verdict)
    $('comment').value = review.comment
  }
}

function describe(finding: Finding, report: Report): string {
  return (
    `Finding ${finding.id}: nodule ${percent(finding.p_nodule)}, diameter ${finding.diameter_mm.toFixed(1)} mm, ` +
    `malignancy ${percent(finding.p_malignant)}, slice ${finding.slice_index + 1} of ${report.input.shape_zyx[0]}`
  )
}

function showPatient(report: Report): void {
  const { p_malignant, finding_id, method } = report.patient
  const answer = p_malignant === null ? 'no finding' : `${percent(p_malignant)} (finding ${finding_id})`
  const rule = report.models.find((model) => model.role === 'malignancy')?.summary
  $('patient').replaceChildren(
    make('h2', {}, 'Patient'),
    make('p', { className: 'answer' }, 'Malignancy: ', make('strong', {}, answer)),
    make('details', {}, make('summary', {}, 'How this was computed'), make('p', {}, [method, rule].filter(Boolean).join('. '))),
  )
  $('warnings').hidden = report.warnings.length === 0
  $('warnings').querySelector('ul')!.replaceChildren(...report.warnings.map((text) => make('li', {}, text)))
}
