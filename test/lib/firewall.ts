import assert from 'node:assert/strict'
import { once } from 'node:events'
import { resolve } from 'node:path'
import { createInterface } from 'node:readline'
import { after, before } from 'node:test'
import { type Address, overlaps, parseAddress } from '../../scripts/lib/address.ts'
import type { Ended } from '../../scripts/lib/run.ts'
import { openSandbox, type Sandbox } from './sandbox.ts'

export const BACKENDS = ['nftables', 'ipset', 'iptables'] as const
export type BackendName = (typeof BACKENDS)[number]

export const LEDGER = '/var/lib/fail2ban-perimeter/firewall.leases'
export const PERIMETER = bundleOf('perimeter')

/** As setup leaves a firewall: an empty ledger of a generation. */
const EMPTY = '# generation abcd0123 1700000000\n'

/** How a program for root ends that has done what it was told. */
export const DONE = { code: 0, stdout: '', stderr: '' }

/** A firewall side in a sandbox, over a real kernel; what it blocks is read by code of our own. */
export interface TestFirewall {
  box: Sandbox
  /** What the gate hands over for one request of an owner. */
  ask(request: string, owner?: string, env?: NodeJS.ProcessEnv): Promise<Ended>
  /**
   * The same through a session that each owner keeps open, which spares the start of a process.
   *
   * @returns what the firewall answered, `error <code> <text>` if it refused
   */
  say(request: string, owner?: string): Promise<string>
  /** A whole `firewall` session; the lines it answers. */
  session(lines: string[], owner?: string, env?: NodeJS.ProcessEnv): Promise<string[]>
  /** One of the programs for root, such as `sweepips`. */
  root(program: string, ...args: string[]): Promise<Ended>
  /** The same as somebody who is not root. */
  nobody(program: string, ...args: string[]): Promise<Ended>
  /** Everything that the kernel blocks: `<chain> <address>`, sorted. */
  blocks(): Promise<string[]>
  /** Jumps into our chains: `<hook> <chain> <ports>`, sorted; both families have the same. */
  jumps(): Promise<string[]>
  ledger(): Promise<string>
  configure(yaml: string): Promise<void>
  write(path: string, text: string): Promise<void>
  /** A firewall just set up: nothing in the kernel, an empty ledger. */
  reset(backend: BackendName, ledger?: string): Promise<void>
}

function bundleOf(program: string): string {
  return resolve(`dist/firewall-side/${program}.cjs`)
}

/** Opens a sandbox with a firewall in it; close `box` in the end. */
export async function openFirewall(): Promise<TestFirewall> {
  const box = await openSandbox()
  /** What each of some commands prints, with one process of ours. */
  const sections = async (...commands: string[]): Promise<string[]> => {
    const line = commands.map((command) => `${command} 2>/dev/null`).join('; echo ----; ')
    return (await box.sh(line)).split('----\n')
  }
  const write = async (path: string, input: string): Promise<void> => {
    await box.run('sh', ['-c', 'mkdir -p "$(dirname "$1")" && cat >"$1"', 'sh', path], { input })
  }
  const send = (owner: string, request: string, env = process.env): Promise<Ended> => {
    const input = `owner ${owner} 192.0.2.10\n${request}`
    return box.run(process.execPath, [PERIMETER], { input, env })
  }
  const talks = new Map<string, Talk>()
  const hangUp = async (): Promise<void> => {
    await Promise.all([...talks.values()].map((talk) => talk.end()))
    talks.clear()
  }
  const configure = async (yaml: string): Promise<void> => {
    await hangUp() // A session reads its configuration once.
    await write('/etc/fail2ban-perimeter/firewall.yaml', yaml)
  }

  return {
    box,
    write,
    configure,
    async say(request, owner = 'web1') {
      const talk = talks.get(owner) ?? new Talk(box, owner)
      talks.set(owner, talk)
      return await talk.say(request.replace(/^(ban|unban|list|flush)(ip|ips)(?= |$)/, '$1'))
    },
    ask: (request, owner = 'web1', env) => send(owner, `${request}\n`, env),
    async session(lines, owner = 'web1', env) {
      const ended = await send(owner, `firewall\n${lines.map((line) => `${line}\n`).join('')}`, env)
      assert.equal(ended.stderr, '')
      return ended.stdout.split('\n').slice(0, -1)
    },
    root: (program, ...args) => box.run(process.execPath, [bundleOf(program), ...args]),
    nobody(program, ...args) {
      const user = ['--reuid=65534', '--regid=65534', '--clear-groups']
      return box.run('setpriv', [...user, process.execPath, bundleOf(program), ...args])
    },
    async blocks() {
      const listed = await sections(
        'nft -j list ruleset',
        'ipset save',
        'iptables -S',
        'ip6tables -S',
      )
      const [nft = '', sets = '', four = '', six = ''] = listed
      return [...nftBlocks(nft), ...setBlocks(sets), ...ruleBlocks(four), ...ruleBlocks(six)].sort()
    },
    async jumps() {
      const listed = await sections(
        'nft -t list table inet fail2ban-perimeter',
        'iptables -S',
        'ip6tables -S',
      )
      const [nft = '', four = '', six = ''] = listed
      assert.deepEqual(ruleJumps(six), ruleJumps(four))
      return [...nftJumps(nft), ...ruleJumps(four)].sort()
    },
    ledger: () => box.sh(`cat ${LEDGER}`),
    async reset(backend, ledger = EMPTY) {
      const script = `nft flush ruleset; ipset destroy; rm -rf /run/fail2ban-perimeter
        ! mountpoint -q /var/lib/fail2ban-perimeter || umount /var/lib/fail2ban-perimeter
        rm -rf /etc/fail2ban-perimeter /var/lib/fail2ban-perimeter`
      await hangUp()
      await box.sh(script)
      await configure(`backend: ${backend}\n`)
      await write(LEDGER, ledger)
    },
  }
}

/** One firewall over nftables, just set up, for all tests of this file; it is there when they run. */
export function useFirewall(ledger?: string): TestFirewall {
  const fw = {} as TestFirewall
  before(async () => {
    Object.assign(fw, await openFirewall())
    await fw.reset('nftables', ledger)
  })
  after(() => fw.box.close())
  return fw
}

/** A session that goes on: one request after the other. */
class Talk {
  readonly #child: ReturnType<Sandbox['start']>
  readonly #lines: AsyncIterator<string>

  constructor(box: Sandbox, owner: string) {
    this.#child = box.start(process.execPath, [PERIMETER])
    this.#child.stdin.write(`owner ${owner} 192.0.2.10\nfirewall\n`)
    this.#lines = createInterface({ input: this.#child.stdout })[Symbol.asyncIterator]()
  }

  async say(request: string): Promise<string> {
    this.#child.stdin.write(`${request}\n`)
    for (let answer = ''; ; ) {
      const { done, value: line } = await this.#lines.next()
      if (done) throw new Error(`the session ended instead of answering ${request}`)
      if (line === 'ok') return answer
      if (/^(ok|error) /.test(line)) return line
      answer += `${line}\n`
    }
  }

  async end(): Promise<void> {
    const gone = once(this.#child, 'exit')
    this.#child.stdin.end()
    await gone
  }
}

/** The living leases of a ledger's text: `<chain> <address>`, sorted, each once. */
export function leasesOf(ledger: string): string[] {
  const last = new Map<string, string[]>()
  for (const line of ledger.split('\n')) {
    const words = line.split(' ')
    if (words.length !== 4 || line.startsWith('#')) continue
    last.set(`${words[0]} ${words[1]} ${words[3]}`, words)
  }
  const living = [...last.values()].filter(([, , end]) => end === '0' || Number(end) > 1e9)
  return [...new Set(living.map(([address, jail]) => `fail2ban-${jail} ${address}`))].sort()
}

interface NftItem {
  set?: { table: string; name: string; elem?: (string | { elem: { val: string } })[] }
}

function nftBlocks(json: string): string[] {
  const items = (JSON.parse(json) as { nftables: NftItem[] }).nftables
  return items.flatMap(({ set }) => {
    const [chain, family, width] = set?.name.split('/') ?? []
    if (set?.table !== 'fail2ban-perimeter' || !family || !/^(fail2ban|f2b)-/.test(set.name))
      return []
    return (set.elem ?? []).map((item) => {
      const text = typeof item === 'string' ? item : item.elem.val
      return `${chain} ${text}${width ? `/${width}` : ''}`
    })
  })
}

function setBlocks(saved: string): string[] {
  return [...saved.matchAll(/^add ((?:fail2ban|f2b)-\S+)-[46]r? (\S+)/gm)].map(
    ([, chain, address]) => `${chain} ${address}`,
  )
}

interface Rule {
  chain: string
  match: string
  target: string
}

function rulesOf(text: string): Rule[] {
  return [...text.matchAll(/^-A (\S+) (.*)-[jg] (\S+)(.*)$/gm)].map(
    ([, chain = '', match = '', target = '']) => ({ chain, match, target }),
  )
}

/** The addresses that a jail's chain blocks, as far as the index leads a packet from there to it. */
function ruleBlocks(text: string): string[] {
  const rules = rulesOf(text)
  const source = (rule: Rule) => /-s (\S+)/.exec(rule.match)?.[1]
  const isFound = (address: Address, chain = 'perimeter-look'): boolean => {
    if (chain === 'perimeter-banned') return true
    const next = rules.find((rule) => {
      const block = rule.chain === chain && source(rule)
      return block && overlaps(parseAddress(block), address)
    })
    return next !== undefined && isFound(address, next.target)
  }
  return rules.flatMap((rule) => {
    const address = source(rule)
    if (!address || !/^(DROP|REJECT)$/.test(rule.target)) return []
    if (!isFound(parseAddress(address))) return []
    return [`${rule.chain} ${address.replace(/\/(32|128)$/, '')}`]
  })
}

/** Each jail's chain, as far as a packet from a hook comes there, with the ports that it blocks. */
function nftJumps(table: string): string[] {
  const chains = new Map<string, string[]>()
  for (const [, chain = '', body = ''] of table.matchAll(/^\tchain (\S+) \{\n(.*?)^\t\}/gms)) {
    chains.set(chain, body.split('\n'))
  }
  const rules = (chain: string): string[] => chains.get(chain) ?? []
  const reached = (chain: string): string[] =>
    rules(chain).flatMap((rule) => {
      const [, next] = /jump (\S+)/.exec(rule) ?? []
      return next ? [next, ...reached(next)] : []
    })
  return ['input', 'forward'].flatMap((hook) =>
    [...new Set(reached(hook))].flatMap((chain) =>
      rules(chain)
        .filter((rule) => /\bcounter name /.test(rule))
        .map((rule) => {
          const ports = /dport (?:\{ (.*?) \}|(\S+))/.exec(rule)
          const list = (ports?.[1] ?? ports?.[2] ?? 'all').replaceAll(', ', ',')
          return `${hook.toUpperCase()} ${chain} ${list.replaceAll('-', ':')}`
        }),
    ),
  )
}

/** The same for iptables, where a jump or a rule of the jail's chain may say the ports. */
function ruleJumps(text: string): string[] {
  const rules = rulesOf(text)
  const ports = (match: string): string | undefined => /--dports (\S+)/.exec(match)?.[1]
  const reached = (chain: string): { chain: string; match: string }[] =>
    rules
      .filter((rule) => rule.chain === chain && !/^(DROP|REJECT|RETURN|ACCEPT)$/.test(rule.target))
      .flatMap(({ target, match }) => [{ chain: target, match }, ...reached(target)])
  const hooks = new Set(
    rules.flatMap(({ chain, match }) =>
      match.includes('--comment fail2ban-perimeter ') ? [chain] : [],
    ),
  )
  const jumps = [...hooks].flatMap((hook) =>
    // The index of rules leads there for those only who are banned.
    [...reached(hook), ...reached('perimeter-banned')].flatMap(({ chain, match }) => {
      if (!/^(fail2ban|f2b)-/.test(chain)) return []
      const own = rules.filter(
        (rule) => rule.chain === chain && /^(DROP|REJECT)$/.test(rule.target),
      )
      const kinds = own.filter((rule) => !rule.match.includes('-s '))
      const lists = kinds.length > 0 ? kinds.map((rule) => ports(rule.match)) : [ports(match)]
      return lists.map((list) => `${hook} ${chain} ${list ?? 'all'}`)
    }),
  )
  return [...new Set(jumps)].sort()
}
