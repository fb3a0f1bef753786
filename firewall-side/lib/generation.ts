import { replaceDurably } from '../../scripts/lib/durable.ts'
import { now } from '../../scripts/lib/lease.ts'
import { parsePorts, parseProtocols } from '../../scripts/lib/ports.ts'

/** Ports and protocols as an owner named them for a jail. */
export interface Naming {
  ports: string
  protocol: string
}

/**
 * What the remarks of the ledger say. A ledger begins with its generation; a firewall that finds no
 * ledger has lost it, begins a new generation marked `lost`, and each owner is told so until it has
 * sent everything again (`synced`).
 */
export interface Register {
  generation: string
  lost: boolean
  synced: Set<string>
  /** Who named which ports for a jail's chain. */
  chains: Map<string, Map<string, Naming>>
  /** Prefix lengths of the ranges in a jail's chain, such as `inet4/24`. */
  widths: Map<string, string[]>
}

/** Reads the remarks of the ledger; the last word about a chain counts. */
export function readRegister(remarks: string[]): Register {
  const register: Register = {
    generation: '',
    lost: false,
    synced: new Set(),
    chains: new Map(),
    widths: new Map(),
  }
  for (const remark of remarks) {
    const [word, ...rest] = remark.slice(1).trim().split(' ')
    if (word === 'generation') {
      register.generation = rest[0] ?? ''
      register.lost = rest[2] === 'lost'
    } else if (word === 'synced' && rest[0]) {
      if (rest[1] === 'gone') register.synced.delete(rest[0])
      else register.synced.add(rest[0])
    } else if (word === 'chain') {
      readChain(register, rest)
    } else if (word === 'widths' && rest[0]) {
      register.widths.set(rest[0], rest.slice(1).filter(isWidth))
    }
  }
  return register
}

/** The remark for a chain, and for a chain that an owner no longer uses. */
export function chainRemark(jail: string, owner: string, naming?: Naming): string {
  return naming
    ? `chain ${jail} ${owner} ${naming.ports} ${naming.protocol}`
    : `chain ${jail} ${owner} gone`
}

/** The remark for an owner that has sent everything again. */
export function syncedRemark(owner: string): string {
  return `synced ${owner}`
}

/** The remark for the prefix lengths of the ranges in a jail's chain. */
export function widthsRemark(jail: string, widths: string[]): string {
  return ['widths', jail, ...widths].join(' ')
}

/** The remarks that a compacted ledger begins with; other people's remarks stay. */
export function writeRegister(register: Register, remarks: string[]): string[] {
  const foreign = remarks.filter((line) => !/^# ?(generation|synced|chain|widths) /.test(line))
  const first = remarks.find((line) => /^# ?generation /.test(line))
  const chains = [...register.chains].flatMap(([jail, owners]) =>
    [...owners].map(([owner, naming]) => `# ${chainRemark(jail, owner, naming)}`),
  )
  const synced = [...register.synced].map((owner) => `# ${syncedRemark(owner)}`)
  const widths = [...register.widths]
    .filter(([jail]) => register.chains.has(jail))
    .map(([jail, list]) => `# ${widthsRemark(jail, list)}`)
  return [...(first ? [first] : []), ...foreign, ...synced, ...chains, ...widths]
}

/**
 * Writes an empty ledger with a new generation.
 *
 * @param lost true if there should have been one: every owner must then sync again
 * @throws Failure 75 if it cannot be written
 */
export function createLedger(path: string, lost = false): void {
  replaceDurably(path, `# ${generationRemark(lost)}\n`)
}

/** The remark for a generation that begins now. */
export function generationRemark(lost: boolean): string {
  const { randomBytes } = process.getBuiltinModule('node:crypto')
  return `generation ${randomBytes(4).toString('hex')} ${now()}${lost ? ' lost' : ''}`
}

function readChain(register: Register, [jail, owner, ports, protocol]: string[]): void {
  if (!jail || !owner || !ports) return
  const owners = register.chains.get(jail) ?? new Map<string, Naming>()
  if (protocol && isNaming(ports, protocol)) owners.set(owner, { ports, protocol })
  else owners.delete(owner)
  if (owners.size > 0) register.chains.set(jail, owners)
  else register.chains.delete(jail)
}

/** False for a remark that only looks like one of ours, or was mistyped. */
function isNaming(ports: string, protocol: string): boolean {
  try {
    parsePorts(ports)
    parseProtocols(protocol)
    return true
  } catch {
    return false
  }
}

function isWidth(width: string): boolean {
  const [, family, prefix] = /^(inet[46])\/([1-9]\d{0,2})$/.exec(width) ?? []
  return Number(prefix) < (family === 'inet4' ? 32 : 128)
}
