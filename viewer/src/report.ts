// What the server sends, as far as the page looks at it. The whole is described by its OpenAPI document.

export type Mm = [number, number, number]

export interface Finding {
  id: number
  center_lps: Mm
  diameter_mm: number
  volume_mm3: number
  mean_hu: number
  p_nodule: number
  p_malignant: number
  slice_index: number
  instance_number: number | null
  long_axis_mm: number | null
  short_axis_mm: number | null
}

export interface Report {
  case_id: string
  input: { series_uid: string | null; shape_zyx: Mm; spacing_zyx_mm: Mm; lung_litres: number }
  findings: Finding[]
  patient: { p_malignant: number | null; finding_id: number | null; method: string }
  threshold: number
  models: { role: string; name: string; summary: string }[]
  warnings: string[]
  carina_version: string
  created: string
}

export interface Job {
  id: string
  number: number
  state: 'queued' | 'running' | 'done' | 'failed' | 'cancelled'
  stage: string | null
  progress: number
  created: string
  cancelling: boolean
  error: { title: string; detail: string } | null
  findings: number | null
  p_malignant: number | null
  links: Record<string, string>
}

export type Verdict = 'accepted' | 'rejected' | 'open'

export interface FindingReview {
  id: number
  verdict: Verdict
  comment: string
}

export interface Review {
  findings: FindingReview[]
  comment: string
  updated: string | null
}

export interface ServerInfo {
  version: string
  uploads: boolean
  upload_bytes: number
  comment_chars: number
}

/** A probability for people: whole percent, and never a false 0 or 100. */
export function percent(share: number): string {
  if (share < 0.005) return '< 1 %'
  if (share >= 0.995) return '> 99 %'
  return `${Math.round(100 * share)} %`
}

/** Where a point lies, in the words of radiology: left/right, posterior/anterior, superior/inferior. */
export function place([l, p, s]: Mm): string {
  const side = (value: number, plus: string, minus: string) => `${value < 0 ? minus : plus} ${Math.abs(value).toFixed(1)}`
  return `${side(l, 'L', 'R')}  ${side(p, 'P', 'A')}  ${side(s, 'S', 'I')} mm`
}

// Told apart by colour-blind people, too (Okabe and Ito).
const COLOURS: Mm[] = [
  [230, 159, 0],
  [86, 180, 233],
  [0, 190, 140],
  [240, 228, 66],
  [213, 110, 40],
  [204, 121, 167],
]

export const colour = (id: number): Mm => COLOURS[(id - 1 + COLOURS.length) % COLOURS.length]!
export const css = (id: number): string => `rgb(${colour(id).join()})`
