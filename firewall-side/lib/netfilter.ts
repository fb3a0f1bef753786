import type { Family } from '../../scripts/lib/address.ts'
import type { PortRange, Service } from '../../scripts/lib/ports.ts'
import { run } from '../../scripts/lib/run.ts'
import type { Chain } from './backend.ts'
import { chainName } from './names.ts'
import { Tool } from './tool.ts'

// The iptables half that the backends `ipset` and `iptables` share: the document's chains and jumps.

/** In a comment on every rule of ours that stands in somebody else's chain, or ends one of ours. */
const MARK = 'fail2ban-perimeter'

/** `multiport` takes 15 ports, and a range counts as two. */
const MULTIPORT = 15

const TOOLS = { inet4: 'iptables', inet6: 'ip6tables' } as const
export const FAMILIES = ['inet4', 'inet6'] as const

/** The filter table of one family as `iptables -S` prints it. */
export interface Dump {
  /** Every chain that there is, also other people's. */
  chains: Set<string>
  /** The rules of a chain, as `-A` lines. */
  rules: Map<string, string[]>
}

/** @returns undefined if iptables does not work here for that family */
export async function dump(family: Family): Promise<Dump | undefined> {
  const { code, stdout } = await run(TOOLS[family], ['-w', '5', '-S'])
  if (code !== 0) return undefined
  const found: Dump = { chains: new Set(), rules: new Map() }
  for (const line of stdout.split('\n')) {
    const [flag, chain] = line.split(' ', 2)
    if (!chain) continue
    if (flag === '-P' || flag === '-N') found.chains.add(chain)
    if (flag !== '-A') continue
    const rules = found.rules.get(chain)
    if (rules) rules.push(line)
    else found.rules.set(chain, [line])
  }
  return found
}

/** Commits lines in one transaction; other people's rules are not part of it. @throws Failure 75 */
export async function restore(family: Family, lines: string[]): Promise<void> {
  if (lines.length === 0) return
  const script = ['*filter', ...lines, 'COMMIT', ''].join('\n')
  await new Tool(`${TOOLS[family]}-restore`, ['-w', '5', '--noflush']).feed(script)
}

/** Our chains, told by the last rule that only we write. */
export function ourChains(now: Dump): string[] {
  return [...now.rules].flatMap(([chain, rules]) =>
    rules.some((rule) => rule.includes(`--comment "${MARK}: `)) ? [chain] : [],
  )
}

/** Our jumps in other people's chains, as `-A` lines. */
export function ourJumps(now: Dump): string[] {
  return [...now.rules.values()].flat().filter((rule) => rule.includes(`--comment ${MARK} `))
}

/**
 * The lines that make chains and jumps as they should be.
 *
 * @param body the rules of a chain before its final RETURN, without `-A <chain>`
 */
export function chainLines(
  family: Family,
  now: Dump,
  chains: Chain[],
  hooks: string[],
  body: (chain: Chain) => string[],
): string[] {
  const wanted = chains.map((chain) => chainName(chain.jail))
  const gone = ourChains(now).filter((chain) => !wanted.includes(chain))
  return [
    ...wanted.map((chain) => `:${chain} - [0:0]`),
    ...ourJumps(now).map((rule) => rule.replace(/^-A/, '-D')),
    ...gone.flatMap((chain) => [`-F ${chain}`, `-X ${chain}`]),
    ...chains.flatMap((chain) => chainRules(chain, body(chain))),
    ...jumpLines(family, now, chains, hooks),
  ]
}

/** The jumps that there should be, in the hooks that exist (DOCKER-USER does not everywhere). */
export function jumpLines(family: Family, now: Dump, chains: Chain[], hooks: string[]): string[] {
  return hooks
    .filter((hook) => now.chains.has(hook))
    .flatMap((hook) =>
      chains.flatMap(({ jail, services }) =>
        services
          .flatMap((service) => matches(service, family))
          .map(
            (match) => `-I ${hook} 1 ${match}-m comment --comment ${MARK} -j ${chainName(jail)}`,
          ),
      ),
    )
}

/** True if the chains end as ours do and as many jumps stand as should. */
export function intact(family: Family, now: Dump, chains: Chain[], hooks: string[]): boolean {
  const ours = new Set(ourChains(now))
  const all = chains.every((chain) => ours.has(chainName(chain.jail)))
  return all && ourJumps(now).length === jumpLines(family, now, chains, hooks).length
}

/** The first chain that has the name of one of ours but was made by somebody else. */
export function foreignChain(now: Dump, chains: Chain[]): string | undefined {
  const ours = ourChains(now)
  const names = chains.map((chain) => chainName(chain.jail))
  return names.find((name) => now.chains.has(name) && !ours.includes(name))
}

function chainRules({ jail }: Chain, body: string[]): string[] {
  const name = chainName(jail)
  const last = `-m comment --comment "${MARK}: ${jail}" -j RETURN`
  return [...body, last].map((rule) => `-A ${name} ${rule}`)
}

function matches({ protocol, ports }: Service, family: Family): string[] {
  if (protocol === 'all') return ['']
  const name = protocol === 'icmp' && family === 'inet6' ? 'icmpv6' : protocol
  if (ports === 'all') return [`-p ${name} `]
  return slots(ports).map((list) => `-p ${name} -m multiport --dports ${list} `)
}

function slots(ports: PortRange[]): string[] {
  const lists: string[][] = [[]]
  let used = 0
  for (const [from, to] of ports) {
    const size = from === to ? 1 : 2
    if (used + size > MULTIPORT) {
      lists.push([])
      used = 0
    }
    used += size
    lists.at(-1)?.push(from === to ? String(from) : `${from}:${to}`)
  }
  return lists.map((list) => list.join(','))
}
