import type { Address, Family } from '../../scripts/lib/address.ts'
import { pieces } from '../../scripts/lib/bulk.ts'
import { EXIT, Failure } from '../../scripts/lib/failure.ts'
import { run } from '../../scripts/lib/run.ts'
import {
  type Backend,
  type Chain,
  type Change,
  type Entry,
  type Load,
  loadsOf,
  secondsLeft,
} from './backend.ts'
import type { FirewallConfig } from './config.ts'
import { chainName } from './names.ts'
import * as netfilter from './netfilter.ts'
import { Tool } from './tool.ts'

/** ipset counts milliseconds in 32 bits. */
const LONGEST = 2_147_483

/** The default of 65536 makes every ban after it fail ("Hash is full"). */
const OPTIONS = 'timeout 0 maxelem 4194304'

const TYPES = { inet4: 'hash:net family inet', inet6: 'hash:net family inet6' } as const

/**
 * The document's iptables chains with a set behind each. `hash:net` holds single addresses and
 * ranges side by side, overlapping or not, and a change costs the same at any size.
 */
export function ipset(config: FirewallConfig): Backend {
  const { hooks, blocktype } = config
  const tool = new Tool('ipset', ['-exist', 'restore'])

  const makeChains = async (chains: Chain[], drop: Chain[]): Promise<void> => {
    const gone = drop.map(({ jail }) => chainName(jail))
    const wanted = chains.map(({ jail }) => chainName(jail))
    await feed(tool, ['f2b-never', ...wanted].flatMap(bothSets).map(create))
    for (const family of netfilter.FAMILIES) {
      const now = await netfilter.dump(family)
      if (!now) continue
      // Also what was to go when somebody was killed.
      gone.push(...netfilter.ourChains(now).filter((chain) => !wanted.includes(chain)))
      await writeChains(family, now, chains)
    }
    if (gone.length > 0) await destroy(tool, [...new Set(gone)].flatMap(bothSets))
  }

  const writeChains = async (family: Family, now: netfilter.Dump, chains: Chain[]) => {
    const foreign = netfilter.foreignChain(now, chains)
    if (foreign) throw foreignFailure(foreign)
    const body = ({ jail }: Chain): string[] => [
      `-m set --match-set ${setName('f2b-never', family)} src -j RETURN`,
      `-m set --match-set ${setName(chainName(jail), family)} src -j ${blocktype}`,
    ]
    await netfilter.restore(family, netfilter.chainLines(family, now, chains, hooks, body))
  }

  return {
    name: 'ipset',
    expires: true,
    longest: LONGEST,
    tool,

    async works() {
      const lists = await run('ipset', ['list', '-n'])
      return lists.code === 0 && (await netfilter.dump('inet4')) !== undefined
    },

    async apply(change) {
      if (change.chains) await makeChains(change.chains, change.drop)
      await feed(tool, linesOf(change))
    },

    async rebuild({ chains, entries, never }) {
      await makeChains(chains, [])
      await feed(tool, linesOf({ ...NOTHING, never, load: loadsOf(chains, entries) }))
    },

    async count(chains) {
      for (const family of netfilter.FAMILIES) {
        const now = await netfilter.dump(family)
        if (now && !netfilter.intact(family, now, chains, hooks)) return undefined
      }
      const { stdout } = await run('ipset', ['list', '-t'])
      return countSets(stdout, chains)
    },

    async present() {
      return (await run('ipset', ['list', '-n', 'f2b-never-4'])).code === 0
    },

    async remove() {
      for (const family of netfilter.FAMILIES) {
        const now = await netfilter.dump(family)
        if (!now) continue
        const sets = netfilter.ourChains(now).map((chain) => setName(chain, family))
        await netfilter.restore(
          family,
          netfilter.chainLines(family, now, [], hooks, () => []),
        )
        await destroy(tool, [...sets, setName('f2b-never', family), setName('f2b-swap', family)])
      }
    },
  }
}

/** What to say when a chain of the name we need was made by somebody else. */
export function foreignFailure(chain: string): Failure {
  return new Failure(
    EXIT.unexpected,
    `Cannot use chain "${chain}": it was not made by fail2ban-perimeter; remove it first`,
  )
}

/** Has ipset work on the first lines while the last ones are still made. */
async function feed(tool: Tool, lines: Iterable<string>): Promise<void> {
  const rest = ended(lines)
  const first = rest.next()
  if (first.done) return
  const all = function* () {
    yield first.value
    yield* rest
  }
  await tool.feed(all())
}

function* ended(lines: Iterable<string>): Generator<string, void> {
  for (const line of lines) yield `${line}\n`
}

/** Destroys those of the sets that there are. */
async function destroy(tool: Tool, sets: string[]): Promise<void> {
  const names = (await run('ipset', ['list', '-n'])).stdout.split('\n')
  await feed(
    tool,
    sets.filter((set) => names.includes(set)).map((set) => `destroy ${set}`),
  )
}

function setName(chain: string, family: Family): string {
  return `${chain}-${family === 'inet4' ? 4 : 6}`
}

function bothSets(chain: string): string[] {
  return netfilter.FAMILIES.map((family) => setName(chain, family))
}

function create(set: string): string {
  return `create ${set} ${TYPES[set.endsWith('-4') ? 'inet4' : 'inet6']} ${OPTIONS}`
}

/** What of a change goes into sets. */
type Contained = Pick<Change, 'never' | 'load' | 'enter' | 'extend' | 'leave'>
const NOTHING = { load: [], enter: [], extend: [], leave: [] }

function* linesOf(change: Contained) {
  yield* neverLines(change)
  yield* loadLines(change.load)
  yield* entryLines(change)
}

function* neverLines({ never }: Contained): Generator<string> {
  if (!never) return
  for (const family of netfilter.FAMILIES) {
    const elements = never.filter((a) => a.family === family)
    yield* replaced(setName('f2b-never', family), elements, (a) => a.text)
  }
}

function* loadLines(loads: Load[]): Generator<string> {
  for (const { chain, entries } of loads) {
    for (const family of netfilter.FAMILIES) {
      const elements = entries.filter((e) => e.address.family === family)
      yield* replaced(setName(chainName(chain.jail), family), elements, element)
    }
  }
}

/** Fills a set beside the one in use and swaps the two, so that nobody is free in between. */
function* replaced<T>(set: string, elements: T[], text: (element: T) => string): Generator<string> {
  const beside = `f2b-swap-${set.endsWith('-4') ? 4 : 6}`
  yield `${create(beside)}\nflush ${beside}`
  yield* pieces(elements, (one) => `add ${beside} ${text(one)}`, '\n')
  yield `swap ${beside} ${set}\ndestroy ${beside}`
}

function* entryLines({ enter, extend, leave }: Contained): Generator<string> {
  const setOf = ({ jail, address }: { jail: string; address: Address }) =>
    setName(chainName(jail), address.family)
  yield* pieces(leave, (e) => `del ${setOf(e)} ${e.address.text}`, '\n')
  yield* pieces([...enter, ...extend], (e) => `add ${setOf(e)} ${element(e)}`, '\n')
}

function element({ address, expires }: Entry): string {
  return `${address.text} timeout ${expires ? secondsLeft(expires, LONGEST) : 0}`
}

function countSets(listing: string, chains: Chain[]): Map<string, number> | undefined {
  const sizes = new Map<string, number>()
  for (const block of listing.split('\n\n')) {
    const name = /^Name: (.*)$/m.exec(block)?.[1]
    if (name) sizes.set(name, Number(/^Number of entries: (\d+)$/m.exec(block)?.[1] ?? 0))
  }
  const counts = new Map<string, number>()
  for (const { jail } of chains) {
    const found = bothSets(chainName(jail)).map((set) => sizes.get(set))
    if (found.includes(undefined)) return undefined
    counts.set(
      jail,
      found.reduce((sum: number, size) => sum + (size ?? 0), 0),
    )
  }
  return counts
}
