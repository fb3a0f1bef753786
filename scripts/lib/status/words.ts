/** Time spans in seconds, the longest that fits first. */
const UNITS: [number, string][] = [
  [86_400, 'd'],
  [3_600, 'h'],
  [60, 'min'],
  [1, 's'],
]

/** A time span as a person says it, in its largest unit: `12 s`, `3 min`, `2 h`, `40 d`. */
export function span(seconds: number): string {
  const whole = Math.max(0, Math.floor(seconds))
  const [size, unit] = UNITS.find(([size]) => whole >= size) ?? [1, 's']
  return `${Math.floor(whole / size)} ${unit}`
}

/** A moment in local time: `2026-11-20 17:05:20`. */
export function moment(at: number): string {
  const date = new Date(at * 1000)
  const two = (value: number): string => String(value).padStart(2, '0')
  const day = `${date.getFullYear()}-${two(date.getMonth() + 1)}-${two(date.getDate())}`
  return `${day} ${two(date.getHours())}:${two(date.getMinutes())}:${two(date.getSeconds())}`
}

/** When a ban ends: `2026-11-20 17:15:20 (in 7 min)`, or `never`. */
export function ending(expires: number, now: number): string {
  if (expires === 0) return 'never'
  const left = expires - now
  return `${moment(expires)} (${left > 0 ? `in ${span(left)}` : 'over'})`
}

/**
 * What another program, machine or attacker wrote, as it may stand in a terminal: no control codes
 * (nor those that turn the direction of the text) and on one line.
 */
export function plain(text: string): string {
  return text.replace(/[\p{C}\p{Zl}\p{Zp}]+/gu, ' ').trim()
}

/** `1 ban`, `2 bans`. */
export function count(number: number, noun: string): string {
  return `${number} ${noun}${number === 1 ? '' : 's'}`
}
