// What a person says about a study's findings: kept here, and stored on the server soon after every change.

import { json, Problem } from './api'
import type { FindingReview, Review, Verdict } from './report'

const PAUSE_MS = 500
const AGAIN_MS = 5000

// A small review is sent even if the page goes away meanwhile. Browsers refuse to do that with more than 65 536 bytes.
const KEEPALIVE_BYTES = 60_000

export class Reviewer {
  /** Whose last word the server has not got; kept when their study is left. */
  private static readonly unsaved = new Map<string, Reviewer>()
  private waiting: number | undefined
  private sending: Promise<void> | undefined
  private changed = false

  private constructor(
    private readonly url: string,
    private readonly review: Review,
    private said: (text: string, good: boolean) => void,
  ) {}

  static async open(
    url: string,
    signal: AbortSignal,
    said: (text: string, good: boolean) => void,
  ): Promise<Reviewer> {
    const left = Reviewer.unsaved.get(url)
    await left?.flush()
    if (!left?.changed) return new Reviewer(url, await json<Review>(url, { signal }), said)
    // What the server has is older.
    left.said = said
    left.flushIn(PAUSE_MS)
    return left
  }

  of(id: number): FindingReview {
    return this.review.findings.find((one) => one.id === id) ?? { id, verdict: 'open', comment: '' }
  }

  get comment(): string {
    return this.review.comment
  }

  /** Whether the server has it, in words. */
  get state(): string {
    const { updated } = this.review
    if (this.changed) return 'Not stored yet'
    return updated === null ? '' : `Stored on the server, ${new Date(updated).toLocaleString()}`
  }

  get rejected(): Set<number> {
    return new Set(this.review.findings.filter((one) => one.verdict === 'rejected').map((one) => one.id))
  }

  judge(id: number, verdict: Verdict): void {
    this.put({ ...this.of(id), verdict })
  }

  remark(id: number, comment: string): void {
    this.put({ ...this.of(id), comment })
  }

  remarkOnStudy(comment: string): void {
    this.review.comment = comment
    this.soon()
  }

  /** Send what has not been sent; also when the page goes away. */
  async flush(): Promise<void> {
    clearTimeout(this.waiting)
    await this.sending
    if (this.changed) {
      this.changed = false
      this.sending = this.send()
    }
    await this.sending // which another call may have begun
  }

  private put(one: FindingReview): void {
    this.review.findings = [...this.review.findings.filter(({ id }) => id !== one.id), one].sort((a, b) => a.id - b.id)
    this.soon()
  }

  private soon(): void {
    this.changed = true
    this.said(this.state, true)
    this.flushIn(PAUSE_MS)
  }

  private flushIn(pause: number): void {
    clearTimeout(this.waiting)
    this.waiting = window.setTimeout(() => void this.flush(), pause)
  }

  private async send(): Promise<void> {
    const { findings, comment } = this.review
    const body = new TextEncoder().encode(JSON.stringify({ findings, comment }))
    try {
      const stored = await json<Review>(this.url, {
        method: 'PUT',
        headers: { 'Content-Type': 'application/json' },
        body,
        keepalive: body.length < KEEPALIVE_BYTES,
      })
      this.review.updated = stored.updated
      Reviewer.unsaved.delete(this.url)
      if (!this.changed) this.said(this.state, true)
    } catch (error) {
      this.changed = true
      Reviewer.unsaved.set(this.url, this)
      const { detail, status } = error instanceof Problem ? error : new Problem('', String(error))
      // Also when the study has been left; what the server refuses as it is will be refused again.
      const again = status === 0 || status >= 500
      if (again) this.flushIn(AGAIN_MS)
      this.said(`Not stored: ${detail}. It is tried again ${again ? 'soon' : 'with your next change'}.`, false)
    }
  }
}
