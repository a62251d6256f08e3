// Where the page begins: which of its three faces is shown, and its keys.

import { json, onTokenNeeded, Problem } from './api'
import { $, goAgain, make, only } from './dom'
import type { Job, ServerInfo } from './report'
import { hideProblem, prepareStart, showStudies } from './start'
import { Study } from './study'
import { follow, over, prepareWait, waiting } from './wait'

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

onTokenNeeded(async (refused) => {
  const dialog = $('token')
  $('token-value').value = ''
  dialog.returnValue = '' // which Escape leaves as it is
  dialog.showModal()
  $('token-problem').hidden = !refused
  await new Promise((closed) => dialog.addEventListener('close', closed, { once: true }))
  return dialog.returnValue && $('token-value').value
})

let leaving = new AbortController()
let study: Study | undefined
let greeting: Promise<ServerInfo> | undefined

/** What the server says of itself; asked once, and again where it did not answer. */
function greet(): Promise<ServerInfo> {
  greeting ??= json<ServerInfo>('/v1/server').then(
    (server) => {
      document.body.classList.toggle('single', !server.uploads)
      prepareStart(server)
      return server
    },
    (error) => {
      greeting = undefined
      throw error
    },
  )
  return greeting
}

async function route(): Promise<void> {
  leaving.abort()
  leaving = new AbortController()
  const { signal } = leaving
  if (!$('start').hidden) hideProblem() // it has been read
  await study?.close()
  const server = await greet()
  if (signal.aborted) return
  const id = location.hash.slice(1)
  if (!id && server.uploads) {
    only('start')
    $('start-title').focus()
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

function begin(): void {
  for (const [key, meaning] of Object.entries(KEYS)) {
    $('keys').querySelector('dl')!.append(make('dt', {}, make('kbd', {}, key)), make('dd', {}, meaning))
  }
  $('show-keys').addEventListener('click', () => $('keys').showModal())
  document.addEventListener('keydown', keys)
  document.addEventListener('visibilitychange', () => void study?.close())
  prepareWait()
  for (const link of [document.querySelector('.brand')!, $('wait-back')]) {
    link.addEventListener('click', () => {
      if (!location.hash) goAgain()
    })
  }
  window.addEventListener('hashchange', () => void route().catch(fail))
  goAgain()
}

function fail(error: unknown): void {
  if (error instanceof DOMException && error.name === 'AbortError') return
  const problem = error instanceof Problem ? error : new Problem('The page failed', String(error))
  over(problem.title, problem.detail)
}

begin()
