// The first page: a study to send, and the studies that are there.

import { ask, json, Problem, upload } from './api'
import { $, announce, goAgain, make } from './dom'
import { percent, type Job, type ServerInfo } from './report'
import { waiting } from './wait'

let before: number | null = null
let asked = 0

export function prepareStart(server: ServerInfo): void {
  for (const id of ['files', 'folder'] as const) {
    const input = $(id)
    input.addEventListener('change', () => {
      void send([...input.files!], server)
      input.value = ''
    })
  }
  const drop = $('drop')
  // Everywhere, so that a file dropped beside the field does not replace the page.
  document.addEventListener('dragover', (event) => {
    event.preventDefault()
    drop.classList.toggle('over', !$('start').hidden)
  })
  document.addEventListener('dragleave', () => drop.classList.remove('over'))
  document.addEventListener('drop', (event) => {
    event.preventDefault()
    drop.classList.remove('over')
    if ($('start').hidden || !event.dataTransfer) return
    dropped(event.dataTransfer)
      .then((files) => send(files, server))
      .catch(showProblem)
  })
  $('more-studies').addEventListener('click', () => void list(before).catch(showProblem))
}

export async function showStudies(): Promise<void> {
  await list(null)
}

/** The newest studies, or those before the ones that are listed. */
async function list(older: number | null): Promise<void> {
  const turn = ++asked
  const query = older === null ? '' : `&before=${older}`
  const page = await json<{ jobs: Job[]; before: number | null }>(`/v1/jobs?limit=20${query}`)
  if (turn !== asked) return // the list has been asked for again meanwhile
  before = page.before
  if (older === null) $('studies').replaceChildren()
  $('studies').append(...page.jobs.map(row))
  $('more-studies').hidden = before === null
  tellWhetherAny()
}

function tellWhetherAny(): void {
  $('no-studies').hidden = $('studies').children.length > 0 || before !== null
}

function row(job: Job): HTMLLIElement {
  const remove = make('button', { type: 'button', textContent: 'Delete' })
  remove.setAttribute('aria-label', `Delete study ${job.number}`)
  const link = make('a', { href: `#${job.id}` }, `Study ${job.number}`)
  const when = make('time', { dateTime: job.created }, new Date(job.created).toLocaleString())
  const item = make('li', { className: job.state }, link, when, make('span', {}, outcome(job)), remove)
  remove.addEventListener('click', async () => {
    if (!window.confirm(`Delete study ${job.number} with its images, report and review?`)) return
    try {
      await ask(`/v1/jobs/${job.id}`, { method: 'DELETE' })
    } catch (error) {
      showProblem(error)
      return
    }
    announce(`Study ${job.number} is deleted`)
    // The others stay, with the older ones that were asked for, and focus goes to the next of them.
    const beside = item.nextElementSibling ?? item.previousElementSibling
    item.remove()
    ;(beside?.querySelector('a') ?? $('studies-title')).focus()
    tellWhetherAny()
  })
  return item
}

function outcome(job: Job): string {
  if (job.state === 'done') {
    if (!job.findings) return 'No findings'
    const malignant = job.p_malignant === null ? '' : `, malignancy ${percent(job.p_malignant)}`
    return `${job.findings} finding${job.findings === 1 ? '' : 's'}${malignant}`
  }
  if (job.state === 'failed') return `${job.error?.title ?? 'Failed'}: ${job.error?.detail ?? ''}`
  return { queued: 'Waiting', running: `Running, ${percent(job.progress)}`, cancelled: 'Cancelled' }[job.state]
}

async function send(files: File[], server: ServerInfo): Promise<void> {
  if (!files.length) return
  hideProblem()
  const size = files.reduce((sum, file) => sum + file.size, 0)
  if (size > server.upload_bytes) {
    showProblem(new Problem('Too large', `${bytes(size)} in all; this server takes up to ${bytes(server.upload_bytes)}`))
    return
  }
  const stop = new AbortController()
  const cancel = () => stop.abort()
  const what = files.length === 1 ? files[0]!.name : `${files.length} files`
  let watched = true
  const leave = () => {
    watched = false
  }
  window.addEventListener('hashchange', leave, { once: true })
  waiting(`Sending ${what}`, 0, bytes(size), cancel)
  try {
    const job = await upload(files, stop.signal, (done) => {
      const detail = done < 1 ? `${percent(done)} of ${bytes(size)}` : 'Unpacking on the server'
      if (watched) waiting(`Sending ${what}`, done, detail, cancel)
    })
    if (watched) location.hash = job.id
    else await sentMeanwhile(job)
  } catch (error) {
    if (watched) goAgain() // back to the first page
    if (error instanceof DOMException) return // it was cancelled
    // Where something else is looked at by now, the first page has to say which upload it was.
    const failed = `${what} was not sent`
    if (!watched) announce(failed)
    showProblem(watched ? error : new Problem(failed, error instanceof Error ? error.message : String(error)))
  } finally {
    window.removeEventListener('hashchange', leave)
  }
}

/** Something else is looked at by now, and stays. */
async function sentMeanwhile(job: Job): Promise<void> {
  announce(`Study ${job.number} is sent`)
  if (!$('start').hidden) await showStudies().catch(showProblem)
}

export function hideProblem(): void {
  $('upload-problem').hidden = true
}

function showProblem(error: unknown): void {
  const box = $('upload-problem')
  box.replaceChildren(
    ...(error instanceof Problem ? [make('strong', {}, error.title), `: ${error.detail}`] : [String(error)]),
  )
  box.hidden = false
}

function bytes(size: number): string {
  if (size < 2 ** 20) return `${Math.ceil(size / 2 ** 10)} KiB`
  return size < 2 ** 30 ? `${(size / 2 ** 20).toFixed(0)} MiB` : `${(size / 2 ** 30).toFixed(1)} GiB`
}

/** All files of a drop, folders opened. */
async function dropped(transfer: DataTransfer): Promise<File[]> {
  // The list of items is empty after the first await.
  const entries = [...transfer.items].map((item) => item.webkitGetAsEntry()).filter((entry) => entry !== null)
  const files: File[] = []
  for (const entry of entries) await gather(entry, files)
  return files
}

async function gather(entry: FileSystemEntry, files: File[]): Promise<void> {
  if (entry.isFile) {
    files.push(await new Promise((resolve, reject) => (entry as FileSystemFileEntry).file(resolve, reject)))
    return
  }
  const reader = (entry as FileSystemDirectoryEntry).createReader()
  for (;;) {
    // A reader gives its entries in pieces, and none at the end.
    const piece = await new Promise<FileSystemEntry[]>((resolve, reject) => reader.readEntries(resolve, reject))
    if (!piece.length) return
    for (const one of piece) await gather(one, files)
  }
}
