// The page's elements by their id, and a short way to make new ones.

type Kinds = { canvas: HTMLCanvasElement; overlay: SVGSVGElement } & Record<
  'files' | 'folder' | 'threshold' | 'token-value',
  HTMLInputElement
> &
  Record<'comment' | 'study-comment', HTMLTextAreaElement> &
  Record<'keys' | 'token', HTMLDialogElement> & { windows: HTMLSelectElement; 'wait-bar': HTMLProgressElement }

export function $<Id extends keyof Kinds>(id: Id): Kinds[Id]
export function $(id: string): HTMLElement
export function $(id: string): Element {
  return document.getElementById(id)!
}

export function make<Tag extends keyof HTMLElementTagNameMap>(
  tag: Tag,
  properties: Partial<HTMLElementTagNameMap[Tag]> = {},
  ...children: (Node | string)[]
): HTMLElementTagNameMap[Tag] {
  const element = Object.assign(document.createElement(tag), properties)
  element.append(...children)
  return element
}

/** Buttons of which one is pressed at a time, as a radio group, so that arrow keys move between them. */
export function choice<Value extends string>(
  where: HTMLElement,
  options: Record<Value, { text: string; title?: string }>,
  chosen: (value: Value) => void,
): (value: Value) => void {
  const inputs = new Map<string, HTMLInputElement>()
  for (const value of Object.keys(options) as Value[]) {
    const { text, title } = options[value]
    const input = make('input', { type: 'radio', name: where.id, value })
    input.addEventListener('change', () => chosen(value))
    inputs.set(value, input)
    where.append(make('label', { title: title ?? '' }, input, make('span', {}, text)))
  }
  return (value) => {
    inputs.get(value)!.checked = true
  }
}

/** Say something to screen readers. */
export function announce(text: string): void {
  $('announce').textContent = text
}

/** Go to where the address leads, also where it led there before; then the browser tells nobody. */
export function goAgain(): void {
  window.dispatchEvent(new HashChangeEvent('hashchange'))
}

export function only(id: 'start' | 'wait' | 'study'): void {
  for (const one of ['start', 'wait', 'study']) $(one).hidden = one !== id
}
