import { type Address, isSingle } from '../../scripts/lib/address.ts'
import { EXIT, Failure } from '../../scripts/lib/failure.ts'
import { type Naming, readNaming, type Service, unionOfServices } from '../../scripts/lib/ports.ts'
import type { Chain } from './backend.ts'
import { KEEP } from './request.ts'
import { Widths, widthOf } from './widths.ts'

/** How many jails one server may have at a time. */
const MAX_JAILS = 256

/**
 * What the remarks of the ledger say: the generation, who named which ports for a jail's chain, and
 * the prefix lengths of the ranges in it. A ledger begins with its generation; a firewall that finds
 * no ledger has lost it, begins a new generation marked `lost`, and each owner is told so until it
 * has sent everything again (`synced`). Each change is noted as a remark; the last word counts.
 */
export class Register {
  readonly generation: string = ''
  readonly lost: boolean = false
  readonly #synced = new Set<string>()
  /** By jail, then by owner. */
  readonly #chains = new Map<string, Map<string, Naming>>()
  readonly widths: Widths
  readonly #note: (remark: string) => void

  /** @param note where a change is written, without the `#` */
  constructor(remarks: string[] = [], note: (remark: string) => void = () => {}) {
    this.#note = note
    this.widths = new Widths(note)
    for (const remark of remarks) {
      const [word, name = '', ...rest] = remark.slice(1).trim().split(' ')
      if (word === 'generation') {
        this.generation = name
        this.lost = rest[1] === 'lost'
      } else if (word === 'synced' && name) {
        if (rest[0] === 'gone') this.#synced.delete(name)
        else this.#synced.add(name)
      } else if (word === 'chain') {
        this.#readChain(name, rest)
      } else if (word === 'widths' && name) {
        this.widths.read(name, rest)
      }
    }
  }

  /** True while this owner has to send everything again, since the ledger was lost. */
  needsSync(owner: string): boolean {
    return this.lost && !this.#synced.has(owner)
  }

  markSynced(owner: string): void {
    if (!this.needsSync(owner)) return
    this.#synced.add(owner)
    this.#note(`synced ${owner}`)
  }

  has(jail: string): boolean {
    return this.#chains.has(jail)
  }

  /** The jails that an owner uses. */
  jailsOf(owner: string): string[] {
    return [...this.#chains].flatMap(([jail, owners]) => (owners.has(owner) ? [jail] : []))
  }

  namingOf(jail: string, owner: string): Naming | undefined {
    return this.#chains.get(jail)?.get(owner)
  }

  /** Every chain, with the union of what its owners named. */
  chains(): Chain[] {
    return [...this.#chains].map(([jail, owners]) => ({
      jail,
      services: servicesOf(owners.values()),
      widths: this.widths.of(jail),
    }))
  }

  /**
   * Notes which ports an owner wants for a jail; `-` keeps what there is, else means all.
   *
   * @throws Failure 77 if it has too many: a chain per jail costs every packet
   */
  name(jail: string, owner: string, { ports, protocol }: Naming): void {
    const known = this.namingOf(jail, owner)
    if (!known && this.jailsOf(owner).length >= MAX_JAILS) {
      const text = `${MAX_JAILS} jails reached: flush those that "${owner}" no longer uses`
      throw new Failure(EXIT.refused, text)
    }
    const naming = {
      ports: ports === KEEP ? (known?.ports ?? 'all') : ports,
      protocol: protocol === KEEP ? (known?.protocol ?? 'all') : protocol,
    }
    if (known?.ports === naming.ports && known.protocol === naming.protocol) return
    this.#write(jail, owner, naming)
  }

  /** Gives a jail that nobody has named a chain: somebody wrote a lease in it by hand. */
  adopt(jail: string, owner: string): void {
    if (!this.has(jail)) this.#write(jail, owner, { ports: 'all', protocol: 'all' })
  }

  /** An owner no longer uses a jail; without owners it has no chain. */
  unname(jail: string, owner: string): void {
    this.#write(jail, owner, undefined)
  }

  /** True if a block of that length can be in the jail's chain. */
  looksFor(jail: string, address: Address): boolean {
    if (!this.has(jail)) return false
    return isSingle(address) || this.widths.of(jail).includes(widthOf(address))
  }

  /** The remarks that a compacted ledger begins with; other people's remarks stay. */
  remarks(all: string[]): string[] {
    const foreign = all.filter((line) => !isOurs(line))
    const first = all.find((line) => /^# ?generation /.test(line))
    const chains = [...this.#chains].flatMap(([jail, owners]) =>
      [...owners].map(([owner, naming]) => `# ${chainRemark(jail, owner, naming)}`),
    )
    const synced = [...this.#synced].map((owner) => `# synced ${owner}`)
    const widths = this.widths.remarks((jail) => this.has(jail))
    return [...(first ? [first] : []), ...foreign, ...synced, ...chains, ...widths]
  }

  #readChain(jail: string, [owner, ports, protocol]: string[]): void {
    if (!jail || !owner || !ports) return
    this.#set(jail, owner, protocol && isNaming(ports, protocol) ? { ports, protocol } : undefined)
  }

  #write(jail: string, owner: string, naming: Naming | undefined): void {
    this.#set(jail, owner, naming)
    this.#note(chainRemark(jail, owner, naming))
  }

  #set(jail: string, owner: string, naming: Naming | undefined): void {
    const owners = this.#chains.get(jail) ?? new Map<string, Naming>()
    if (naming) owners.set(owner, naming)
    else owners.delete(owner)
    if (owners.size > 0) this.#chains.set(jail, owners)
    else this.#chains.delete(jail)
  }
}

function chainRemark(jail: string, owner: string, naming: Naming | undefined): string {
  return `chain ${jail} ${owner} ${naming ? `${naming.ports} ${naming.protocol}` : 'gone'}`
}

/** False for what a person wrote, even if it begins like a remark of ours. */
function isOurs(remark: string): boolean {
  const [word = '', , , ports = '', protocol = ''] = remark.slice(1).trim().split(' ')
  if (word !== 'chain') return ['generation', 'synced', 'widths'].includes(word)
  return ports === 'gone' || isNaming(ports, protocol)
}

/** False for a remark that only looks like one of ours, or was mistyped. */
function isNaming(ports: string, protocol: string): boolean {
  try {
    readNaming(ports, protocol)
    return true
  } catch {
    return false
  }
}

/** A name that /etc/services no longer has must not stop every ban: then all ports are blocked. */
function servicesOf(namings: Iterable<Naming>): Service[] {
  try {
    return unionOfServices(namings)
  } catch {
    return [{ protocol: 'all', ports: 'all' }]
  }
}
