// The server's API: requests, events, uploads. Knows nothing of the page but how to ask for a token.

import type { Job } from './report'

/** An answer that says no; the words are the server's. */
export class Problem extends Error {
  constructor(
    readonly title: string,
    readonly detail: string,
    readonly status = 0,
  ) {
    super(`${title}: ${detail}`)
  }
}

const TOKEN = 'carina-token'
let askForToken: (refused: boolean) => Promise<string> = () => Promise.resolve('')

/** How to ask a person for the token; `refused` is set where the last one was wrong. The answer is empty if none is given. */
export function onTokenNeeded(ask: (refused: boolean) => Promise<string>): void {
  askForToken = ask
}

/** Whether plain links work: a browser that follows one sends no token. */
export const needsToken = (): boolean => sessionStorage.getItem(TOKEN) !== null

function authorization(): Record<string, string> {
  const token = sessionStorage.getItem(TOKEN)
  return token === null ? {} : { Authorization: `Bearer ${token}` }
}

export async function ask(path: string, options: RequestInit = {}): Promise<Response> {
  for (;;) {
    let response: Response
    try {
      response = await fetch(path, { ...options, headers: { ...authorization(), ...options.headers } })
    } catch (error) {
      if (options.signal?.aborted) throw error
      throw new Problem('The server cannot be reached', 'it may have stopped, or the network is down')
    }
    if (response.status === 401) {
      const token = await askForToken(needsToken())
      if (!token) throw new Problem('A token is needed', 'the server answers only those who give it', response.status)
      sessionStorage.setItem(TOKEN, token)
      continue
    }
    if (!response.ok) throw problem(response.status, await response.text())
    return response
  }
}

export async function json<T>(path: string, options: RequestInit = {}): Promise<T> {
  return (await ask(path, options)).json()
}

function problem(status: number, text: string): Problem {
  try {
    const { title, detail } = JSON.parse(text)
    return new Problem(title, detail, status)
  } catch {
    return new Problem('The server failed', `it answered with status ${status}`, status)
  }
}

/** What a stream brings; not every browser lets `for await` read a stream itself. */
async function* pieces<Piece>(stream: ReadableStream<Piece>): AsyncGenerator<Piece> {
  const reader = stream.getReader()
  for (;;) {
    const { done, value } = await reader.read()
    if (done) return
    yield value
  }
}

/** A file's bytes; `progress` is told the fraction that has come. */
export async function bytes(path: string, signal: AbortSignal, progress: (done: number) => void): Promise<ArrayBuffer> {
  const response = await ask(path, { signal })
  const total = Number(response.headers.get('content-length')) || 1
  const gathered: Uint8Array[] = []
  let count = 0
  for await (const piece of pieces(response.body!)) {
    gathered.push(piece)
    count += piece.length
    progress(Math.min(1, count / total))
  }
  const whole = new Uint8Array(count)
  count = 0
  for (const piece of gathered) {
    whole.set(piece, count)
    count += piece.length
  }
  return whole.buffer
}

/** A job whenever it changes, until it has ended. Read by hand because EventSource cannot send a token. */
export async function* watch(id: string, signal: AbortSignal): AsyncGenerator<Job> {
  const response = await ask(`/v1/jobs/${id}/events`, { signal })
  let rest = ''
  for await (const text of pieces(response.body!.pipeThrough(new TextDecoderStream()))) {
    const events = (rest + text).split('\n\n')
    rest = events.pop()!
    for (const event of events) {
      const data = event.split('\n').find((line) => line.startsWith('data: '))
      if (data) yield JSON.parse(data.slice(6))
    }
  }
}

/** Send a study. XMLHttpRequest, because fetch does not tell how much has been sent. */
export async function upload(files: File[], signal: AbortSignal, progress: (done: number) => void): Promise<Job> {
  await ask('/v1/server', { signal }) // asks for the token before anything large is sent
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest()
    request.open('POST', '/v1/studies')
    for (const [name, value] of Object.entries(authorization())) request.setRequestHeader(name, value)
    request.upload.onprogress = (event) => progress(event.lengthComputable ? event.loaded / event.total : 0)
    request.onload = () => {
      if (request.status === 202) resolve(JSON.parse(request.responseText))
      else reject(problem(request.status, request.responseText))
    }
    request.onerror = () => reject(new Problem('The upload was cut off', 'the connection to the server was lost'))
    request.onabort = () => reject(new DOMException('stopped', 'AbortError'))
    signal.addEventListener('abort', () => request.abort())
    const only = files.length === 1 ? files[0] : undefined
    if (only && !only.name.toLowerCase().endsWith('.mhd')) {
      request.send(only)
    } else {
      const form = new FormData()
      for (const file of files) form.append('file', file, file.name)
      request.send(form)
    }
  })
}
