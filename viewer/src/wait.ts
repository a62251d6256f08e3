// The page while a study is sent or analysed, and when that came to nothing.

import { ask, watch } from './api'
import { $, announce, only } from './dom'
import type { Job } from './report'

const STAGES: Record<string, string> = {
  read: 'Reading the CT',
  lungs: 'Finding the lungs',
  segment: 'Marking what could be a nodule',
  group: 'Grouping marks',
  classify: 'Sorting nodules from other things',
  diagnose: 'Rating malignancy',
  write: 'Writing the report',
}
const AGAIN_MS = 2000

let stop: (() => void) | undefined
let told = ''

export function prepareWait(): void {
  $('wait-cancel').addEventListener('click', () => stop?.())
}

/** Show how far something is; `done` is undefined while nobody knows. */
export function waiting(title: string, done: number | undefined, detail: string, cancel?: () => void): void {
  show(title, detail, cancel)
  $('wait').classList.remove('failed')
  const bar = $('wait-bar')
  bar.hidden = false
  if (done === undefined) bar.removeAttribute('value')
  else bar.value = done
  if (told !== title) announce(title)
  told = title
}

/** Say what came to nothing. */
export function over(title: string, detail: string): void {
  show(title, detail, undefined)
  $('wait').classList.add('failed')
  $('wait-bar').hidden = true
  $('wait-title').focus()
}

function show(title: string, detail: string, cancel: (() => void) | undefined): void {
  only('wait')
  stop = cancel
  $('wait-title').textContent = title
  $('wait-detail').textContent = detail
  $('wait-cancel').hidden = !cancel
}

/** Follow a job to its end. Whether there is a report. */
export async function follow(id: string, signal: AbortSignal): Promise<Job | undefined> {
  const cancel = () => void ask(`/v1/jobs/${id}/cancel`, { method: 'POST' })
  let job: Job | undefined
  while (!signal.aborted) {
    try {
      for await (job of watch(id, signal)) {
        if (job.state === 'queued') waiting(`Study ${job.number} waits`, undefined, 'Others are before it.', cancel)
        if (job.state === 'running') waiting(runningTitle(job), job.progress, STAGES[job.stage ?? 'read'] ?? '', cancel)
      }
    } catch (error) {
      if (signal.aborted) return undefined
      const { status } = error as { status?: number }
      if (status === 401) throw error // nobody gives a token; to try again would be to ask again
      if (status === 404) {
        over('There is no such study', 'It may have been deleted.')
        return undefined
      }
      waiting('The connection was lost', undefined, 'Trying again.')
    }
    if (job?.state === 'done') return job
    if (job?.state === 'failed') over(job.error?.title ?? 'The study failed', job.error?.detail ?? '')
    if (job?.state === 'cancelled') over(`Study ${job.number} was cancelled`, 'Nothing of it is kept.')
    if (job?.state === 'failed' || job?.state === 'cancelled') return undefined
    await new Promise((resolve) => setTimeout(resolve, AGAIN_MS))
  }
  return undefined
}

function runningTitle(job: Job): string {
  return job.cancelling ? `Stopping study ${job.number}` : `Study ${job.number} is being analysed`
}
