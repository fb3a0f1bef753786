// How the page writes moments and numbers.

/** `2026-11-20 14:05 UTC`: the device and the reader may live in different zones. */
export function clock(at: number): string {
  return `${new Date(at * 1000).toISOString().slice(0, 16).replace('T', ' ')} UTC`
}

export function hourOf(start: number): string {
  return `${new Date(start * 1000).toISOString().slice(11, 13)}:00`
}

export function count(value: number): string {
  return value.toLocaleString('en-US')
}

export function sum(values: number[]): number {
  return values.reduce((total, value) => total + value, 0)
}
