import { networkInterfaces } from 'node:os'
import { isMap, isScalar, isSeq, parseDocument, stringify } from 'yaml'
import { type Address, isSingle, overlaps, parseAddress } from '../address.ts'
import { EXIT, Failure } from '../failure.ts'
import { say } from './changes.ts'

// Whom no server may have blocked, in firewall.yaml: what --protect names, and what is proposed.

/** A network that this firewall is in. */
interface Network {
  network: Address
  name: string
}

/**
 * firewall.yaml with more in its `never_ban`, and not one character else changed.
 *
 * @throws Failure 78 if the list has a form that we do not change
 */
export function withProtected(text: string, more: readonly string[], path: string): string {
  const missing = [...new Set(more.map((entry) => parseAddress(entry).text))].filter(
    (entry) => !neverIn(text).some((known) => known.text === entry),
  )
  if (missing.length === 0) return text
  const root = parseDocument(text).contents
  const node = isMap(root) ? root.get('never_ban', true) : undefined
  const flow = (items: unknown[]): string =>
    `[${items.map((item) => stringify(item, { defaultStringType: 'QUOTE_DOUBLE' }).trim()).join(', ')}]`
  if (node === undefined) return `${text.replace(/\n*$/, '\n')}never_ban: ${flow(missing)}\n`
  const last = isSeq(node) ? node.items.at(-1) : undefined
  if (isSeq(node) && node.range && (node.flow || !last)) {
    const items = [...(node.toJSON() as unknown[]), ...missing]
    return text.slice(0, node.range[0]) + flow(items) + text.slice(node.range[1])
  }
  if (isScalar(last) && last.range) {
    const at = text.lastIndexOf('\n', last.range[0]) + 1
    const dash = /^ *- +/.exec(text.slice(at))?.[0]
    const end = text.indexOf('\n', last.range[1])
    const added = missing.map((entry) => `${dash}${flow([entry]).slice(1, -1)}\n`).join('')
    if (dash && end >= 0) return text.slice(0, end + 1) + added + text.slice(end + 1)
  }
  throw new Failure(EXIT.config, `Cannot add to "never_ban" in "${path}": add ${missing} by hand`)
}

/** Names the networks that this firewall is in and that a server's key could have blocked. */
export function proposeNetworks(text: string): void {
  const never = neverIn(text)
  const open = connected().filter(({ network }) => {
    return !never.some((known) => known.prefix <= network.prefix && overlaps(known, network))
  })
  if (open.length === 0) return
  say('note: a server may have addresses blocked of the networks that this firewall is in; to keep')
  say('      one of them out of its reach, repeat this with:')
  for (const { network, name } of open) say(`  --protect ${network.text}   # ${name}`)
}

function neverIn(text: string): Address[] {
  const list = (parseDocument(text).toJS() as { never_ban?: unknown } | null)?.never_ban
  return Array.isArray(list) ? list.map((entry) => parseAddress(String(entry))) : []
}

function connected(): Network[] {
  const found = new Map<string, Network>()
  for (const [name, entries = []] of Object.entries(networkInterfaces())) {
    for (const { cidr, internal } of entries) {
      if (cidr === null || internal || cidr.startsWith('fe80:')) continue
      const network = parseAddress(cidr)
      if (!isSingle(network)) found.set(network.text, { network, name })
    }
  }
  return [...found.values()]
}
