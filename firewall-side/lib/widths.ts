import { type Address, type Family, isSingle } from '../../scripts/lib/address.ts'
import { EXIT, Failure } from '../../scripts/lib/failure.ts'

/** So many prefix lengths of a family may an owner's ranges have: each is a look-up, and sets. */
const MAX_WIDTHS = 16

/**
 * The prefix lengths of the ranges in each jail's chain, such as `inet4/24`, and whose ranges have
 * them. A length stays noted when its last range has gone, until its owner has no room for another.
 */
export class Widths {
  /** By jail, then by owner. */
  readonly #noted = new Map<string, Map<string, readonly string[]>>()
  readonly #note: (remark: string) => void

  /** @param note where a change is written */
  constructor(note: (remark: string) => void) {
    this.#note = note
  }

  /** Reads a remark without its first word. */
  read(jail: string, [owner, ...widths]: string[]): void {
    if (owner && !isWidth(owner)) this.#set(jail, owner, widths.filter(isWidth))
  }

  /** What a jail's chain has to look for. */
  of(jail: string): string[] {
    return [...new Set([...(this.#noted.get(jail)?.values() ?? [])].flat())].sort()
  }

  /** Notes the length of a range. */
  add(jail: string, owner: string, address: Address): void {
    if (isSingle(address)) return
    const known = this.#noted.get(jail)?.get(owner) ?? []
    const width = widthOf(address)
    if (!known.includes(width)) this.#write(jail, owner, [...known, width])
  }

  /** True if an owner may have these as well, as far as is noted. */
  fits(owner: string, addresses: Iterable<Address>): boolean {
    const widths = new Set(lengthsOf(addresses))
    if (widths.size === 0) return true
    for (const owners of this.#noted.values()) {
      for (const width of owners.get(owner) ?? []) widths.add(width)
    }
    return full(widths) === undefined
  }

  /**
   * Forgets the lengths that an owner no longer has, to make room.
   *
   * @param held what it has, by jail
   * @returns the jails that looked for more
   * @throws Failure 77 if that is too much, together with what is to come
   */
  keep(owner: string, held: Map<string, Set<string>>, more: Iterable<Address>): string[] {
    const family = full(new Set([...lengthsOf(more), ...[...held.values()].flatMap((w) => [...w])]))
    if (family) {
      const text = `${MAX_WIDTHS} prefix lengths of IPv${family.slice(4)} reached: unban ranges that "${owner}" no longer needs`
      throw new Failure(EXIT.refused, text)
    }
    const shrunk: string[] = []
    for (const [jail, owners] of this.#noted) {
      const known = owners.get(owner) ?? []
      const kept = known.filter((width) => held.get(jail)?.has(width))
      if (kept.length === known.length) continue
      this.#write(jail, owner, kept)
      shrunk.push(jail)
    }
    return shrunk
  }

  /** The remarks about jails that there are. */
  remarks(has: (jail: string) => boolean): string[] {
    return [...this.#noted].flatMap(([jail, owners]) =>
      [...owners].flatMap(([owner, widths]) =>
        has(jail) && widths.length > 0 ? [`# ${remarkOf(jail, owner, widths)}`] : [],
      ),
    )
  }

  #write(jail: string, owner: string, widths: readonly string[]): void {
    this.#set(jail, owner, widths)
    this.#note(remarkOf(jail, owner, widths))
  }

  #set(jail: string, owner: string, widths: readonly string[]): void {
    const owners = this.#noted.get(jail) ?? new Map<string, readonly string[]>()
    this.#noted.set(jail, owners.set(owner, widths))
  }
}

export function widthOf({ family, prefix }: Address): string {
  return `${family}/${prefix}`
}

function* lengthsOf(addresses: Iterable<Address>): Generator<string> {
  for (const address of addresses) if (!isSingle(address)) yield widthOf(address)
}

/** The family of which there are too many. */
function full(widths: ReadonlySet<string>): Family | undefined {
  return (['inet4', 'inet6'] as const).find(
    (family) => [...widths].filter((width) => width.startsWith(family)).length > MAX_WIDTHS,
  )
}

function remarkOf(jail: string, owner: string, widths: readonly string[]): string {
  return ['widths', jail, owner, ...widths].join(' ')
}

function isWidth(width: string): boolean {
  const [, family, prefix] = /^(inet[46])\/([1-9]\d{0,2})$/.exec(width) ?? []
  return Number(prefix) < (family === 'inet4' ? 32 : 128)
}
