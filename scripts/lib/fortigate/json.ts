/** A JSON object in order: texts, and one level of objects. Other values are made text. */
export type JsonObject = [key: string, value: string | JsonObject][]

/** What is answered for an object with a key that comes twice. */
export const TWICE = Symbol('twice')

const STRING = /"(?:[^"\\\u0000-\u001f]|\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4}))*"/y
const SCALAR = /-?\d[\d.eE+-]{0,63}|true|false|null/y
const BLANK = /[ \t\r\n]*/y
const MAX_DEPTH = 3

/**
 * Reads a JSON text or an object of texts. JSON.parse would do but for one thing: of a key that comes
 * twice it keeps the last, silently, and the second one may be what an attacker typed as his name.
 *
 * @returns TWICE for such an object, undefined for anything that is not JSON of this kind
 */
export function readJson(text: string): string | JsonObject | typeof TWICE | undefined {
  const reader = new Reader(text)
  try {
    const value = reader.value(MAX_DEPTH)
    reader.end()
    return value
  } catch (error) {
    if (error === TWICE) return TWICE
    if (error === INVALID) return undefined
    throw error
  }
}

const INVALID = Symbol('invalid')

class Reader {
  readonly #text: string
  #at = 0

  constructor(text: string) {
    this.#text = text
  }

  value(depth: number): string | JsonObject {
    this.#take(BLANK)
    if (this.#text[this.#at] === '{' && depth > 0) return this.#object(depth - 1)
    const string = this.#take(STRING)
    if (string !== undefined) return JSON.parse(string)
    const scalar = this.#take(SCALAR)
    if (scalar === undefined) throw INVALID
    return scalar
  }

  end(): void {
    this.#take(BLANK)
    if (this.#at < this.#text.length) throw INVALID
  }

  #object(depth: number): JsonObject {
    const pairs: JsonObject = []
    const keys = new Set<string>()
    this.#expect('{')
    if (this.#try('}')) return pairs
    do {
      this.#take(BLANK)
      const key = JSON.parse(this.#take(STRING) ?? fail())
      if (keys.has(key)) throw TWICE
      keys.add(key)
      this.#expect(':')
      pairs.push([key, this.value(depth)])
    } while (this.#try(','))
    this.#expect('}')
    return pairs
  }

  #take(pattern: RegExp): string | undefined {
    pattern.lastIndex = this.#at
    const match = pattern.exec(this.#text)
    if (match) this.#at = pattern.lastIndex
    return match?.[0]
  }

  #try(mark: string): boolean {
    this.#take(BLANK)
    if (this.#text[this.#at] !== mark) return false
    this.#at++
    return true
  }

  #expect(mark: string): void {
    if (!this.#try(mark)) throw INVALID
  }
}

function fail(): never {
  throw INVALID
}
