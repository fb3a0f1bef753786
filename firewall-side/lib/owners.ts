/** What the firewall must remember of a server beside its leases. */
interface Owner {
  /** The number of its newest session. */
  session: number
  /** By how many seconds our clock is ahead of its own; 0 while they agree. */
  ahead: number
  /** Where it last came from. */
  peer: string
}

const NEW: Owner = { session: 0, ahead: 0, peer: '' }

/**
 * What the ledger's remarks `# owner web1 session=17 ahead=-3600 peer=192.0.2.10` say: durable, and
 * written only when something is new. The last word about an owner counts.
 */
export class Owners {
  readonly #known = new Map<string, Owner>()
  readonly #note: (remark: string) => void

  /** @param note where a change is written, without the `#` */
  constructor(remarks: readonly string[], note: (remark: string) => void) {
    this.#note = note
    for (const remark of remarks) {
      const [, name, facts] = /^# ?owner (\S+) (.*)$/.exec(remark) ?? []
      if (name && facts !== undefined) this.#known.set(name, read(facts))
    }
  }

  of(name: string): Readonly<Owner> {
    return this.#known.get(name) ?? NEW
  }

  /** Notes what is new about an owner. */
  note(name: string, facts: Partial<Owner>): void {
    const known = this.of(name)
    const owner = { ...known, ...facts }
    const same = (Object.keys(owner) as (keyof Owner)[]).every((key) => owner[key] === known[key])
    if (same) return
    this.#known.set(name, owner)
    this.#note(remarkOf(name, owner))
  }

  /** The remarks that a rewritten ledger has for them, in the place of all earlier ones. */
  remarks(all: readonly string[]): string[] {
    const others = all.filter((remark) => !/^# ?owner /.test(remark))
    return [...others, ...Array.from(this.#known, ([name, owner]) => `# ${remarkOf(name, owner)}`)]
  }
}

function remarkOf(name: string, { session, ahead, peer }: Owner): string {
  return `owner ${name} session=${session} ahead=${ahead}${peer ? ` peer=${peer}` : ''}`
}

function read(facts: string): Owner {
  const number = (name: string): number => {
    const value = Number(new RegExp(`(?:^| )${name}=(-?\\d+)`).exec(facts)?.[1] ?? 0)
    return Number.isSafeInteger(value) ? value : 0
  }
  const peer = /(?:^| )peer=([0-9a-f.:]+)/.exec(facts)?.[1] ?? ''
  return { session: number('session'), ahead: number('ahead'), peer }
}
