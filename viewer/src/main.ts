// Where the page begins: which of its three faces is shown, and its keys.

import { json, onTokenNeeded, Problem } from './api'
import { $, make, only } from './dom'
import type { Job, ServerInfo } from './report'
import { prepareStart, showStudies } from './start'
import { Study } from './study'
import { follow, prepareWait, waiting } from './wait'

const KEYS: Record<string, string> = {
  'n, p': 'next, previous finding',
  'a, r, u': 'accept, reject, undecided',
  c: 'comment on the finding',
  '1 to 5': 'all views, axial, coronal, sagittal, 3-D',
  'F6 to F9': 'windows: lung, soft tissue, bone, wide',
  'Page up, down': 'one slice up, down (on the picture also the arrow keys)',
  z: 'zoom to the crosshair',
  o: 'masks and markers',
  'x, l, g, v, w': 'dragging points, measures lengths, measures angles, moves, sets the window',
  '?': 'this list',
}

onTokenNeeded(async () => {
  const dialog = $('token')
  $('token-value').value = ''
  dialog.showModal()
  await new Promise((closed) => dialog.addEventListener('close', closed, { once: true }))
  return $('token-value').value
})

let leaving = new AbortController()
let study: Study | undefined

async function route(server: ServerInfo): Promise<void> {
  leaving.abort()
  leaving = new AbortController()
  const { signal } = leaving
  await study?.close()
  if (signal.aborted) return
  const id = location.hash.slice(1)
  if (!id && server.uploads) {
    only('start')
    await showStudies()
    return
  }
  const wanted = id || (await json<{ jobs: Job[] }>('/v1/jobs', { signal })).jobs[0]?.id || ''
  waiting('Opening the study', undefined, '')
  const job = await follow(wanted, signal)
  if (!job) return
  study ??= new Study(server)
  await study.open(job, signal)
}

function keys(event: KeyboardEvent): void {
  const target = event.target as HTMLElement
  const typing = target.matches('textarea, select, input:not([type=radio])')
  if (typing || event.ctrlKey || event.metaKey || event.altKey || document.querySelector('dialog[open]')) {
    if (event.key === 'Escape' && typing) target.blur()
    return
  }
  if (event.key === '?') $('keys').showModal()
  else if ($('study').hidden || !study?.key(event.key)) return
  event.preventDefault()
}

async function begin(): Promise<void> {
  for (const [key, meaning] of Object.entries(KEYS)) {
    $('keys').querySelector('dl')!.append(make('dt', {}, make('kbd', {}, key)), make('dd', {}, meaning))
  }
  $('show-keys').addEventListener('click', () => $('keys').showModal())
  document.addEventListener('keydown', keys)
  document.addEventListener('visibilitychange', () => void study?.close())
  prepareWait()
  const server = await json<ServerInfo>('/v1/server')
  document.body.classList.toggle('single', !server.uploads)
  prepareStart(server)
  const safely = () => route(server).catch(fail)
  window.addEventListener('hashchange', safely)
  await safely()
}

function fail(error: unknown): void {
  if (error instanceof DOMException && error.name === 'AbortError') return
  const problem = error instanceof Problem ? error : new Problem('The page failed', String(error))
  waiting(problem.title, undefined, problem.detail)
  $('wait').classList.add('failed')
  $('wait-bar').hidden = true
}

begin().catch(fail)
