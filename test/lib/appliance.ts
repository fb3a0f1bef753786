/** A simulated appliance, a configuration and the built script: what the tests of its sibling share. */
import assert from 'node:assert/strict'
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { parseAddress } from '../../scripts/lib/address.ts'
import { loadConfig } from '../../scripts/lib/config.ts'
import { codeOf, messageOf } from '../../scripts/lib/failure.ts'
import { formatLease, type Lease, parseLease } from '../../scripts/lib/lease.ts'
import { type Ended, run } from '../../scripts/lib/run.ts'
import type { Config } from '../../scripts/lib/settings/schema.ts'
import { type Call, changeOne, type Target } from '../../scripts/lib/target.ts'
import { describe, makeCall } from '../../scripts/lib/verbs.ts'
import type { ApplianceSimulator, Mishaps } from '../simulators/appliance.ts'

export interface World<S> {
  sim: S
  dir: string
  /** Runs a verb of the built script as `web1`, or with another configuration. */
  run(args: string, options?: { input?: string; config?: string }): Promise<Ended>
  /** Does something in this process, with so many seconds: quicker than a script. */
  within<T>(work: (target: Target, call: Call) => Promise<T>, options?: Within): Promise<T>
  /** Writes a configuration and returns its path. */
  configure(settings?: Record<string, unknown>, owner?: string): string
}

interface Within {
  config?: string
  seconds?: number
  jail?: string
}

export interface Kind<S> {
  section: 'mikrotik' | 'opnsense'
  make(): S
  /** The keys of the section that a healthy simulator wants. */
  settings(sim: S): Record<string, unknown>
  targets(config: Config): Target[]
}

/** Makes a world, hands it to the work and takes everything down again. */
export async function inWorld<S extends ApplianceSimulator<Mishaps>>(
  kind: Kind<S>,
  work: (world: World<S>) => Promise<void>,
): Promise<void> {
  const sim = await kind.make().listen()
  const dir = mkdtempSync(join(tmpdir(), `${kind.section}-`))
  let files = 0
  const configure = (settings: Record<string, unknown> = {}, owner = 'web1'): string => {
    const file = join(dir, `config-${files++}.yaml`)
    const known = { url: sim.url, ca: sim.ca, name: 'fw1', ...kind.settings(sim) }
    const state_dir = join(dir, owner)
    mkdirSync(state_dir, { recursive: true })
    // Every JSON text is YAML.
    writeFileSync(
      file,
      JSON.stringify({ owner, state_dir, [kind.section]: { ...known, ...settings } }),
    )
    return file
  }
  const config = configure()
  try {
    await work({
      sim,
      dir,
      configure,
      within: async (inside, options = {}) => {
        const loaded = loadConfig(options.config ?? config, kind.section)
        const [target] = kind.targets(loaded.config)
        const values = options.jail === undefined ? {} : { name: options.jail }
        try {
          return await inside(target as Target, makeCall(loaded, values, options.seconds ?? 60))
        } finally {
          await target?.close?.()
        }
      },
      run: (args, options = {}) => {
        const script = join(import.meta.dirname, `../../dist/${kind.section}.cjs`)
        const words = [script, ...args.split(' '), '--config', options.config ?? config]
        return run(process.execPath, words, {
          ...(options.input !== undefined && { input: options.input }),
        })
      },
    })
  } finally {
    await sim.close()
    rmSync(dir, { recursive: true, force: true })
  }
}

/** Leases of `web1`, from lines as `list` prints them. */
export function leasesFrom(lines: string): Lease[] {
  const full = lines.split('\n').filter((line) => line.trim() !== '')
  return full.map((line) => parseLease(line, 'web1'))
}

// Verbs in the process of the test.

export async function ban<S>(world: World<S>, line: string, options?: Within): Promise<void> {
  const [lease] = leasesFrom(line) as [Lease]
  await world.within(
    (target, call) =>
      changeOne(target, call, { verb: 'ban', lease: { ...lease, owner: call.owner } }),
    options,
  )
}

export async function unban<S>(world: World<S>, line: string, options?: Within): Promise<void> {
  const [{ address, jail }] = leasesFrom(`${line} 0`) as [Lease]
  await world.within(
    (target, call) => changeOne(target, call, { verb: 'unban', address, jail }),
    options,
  )
}

/** @returns the counts as the verb prints them */
export async function sync<S>(world: World<S>, lines: string, options?: Within): Promise<string> {
  const work = (target: Target, call: Call) =>
    target.sync(
      call,
      leasesFrom(lines).map((lease) => ({ ...lease, owner: call.owner })),
    )
  return describe(await world.within(work, options))
}

/** @returns the lines that the verb prints, sorted */
export async function list<S>(world: World<S>, options?: Within): Promise<string[]> {
  const leases = await world.within((target, call) => target.list(call), options)
  return leases.map(formatLease).sort()
}

/** So many leases as `sync` reads them, an address each. */
export function manyLeases(count: number, jail = 'sshd', expires = 0): string {
  const address = (i: number) => `203.${i >> 16}.${(i >> 8) & 255}.${i & 255}`
  return Array.from({ length: count }, (_, i) => `${address(i + 256)} ${jail} ${expires}\n`).join(
    '',
  )
}

/** One way of an appliance to fail: which verbs see it, and which exit codes are right then. */
export interface Case<S> {
  name: string
  break(sim: S): void
  codes: readonly number[]
  verbs?: readonly string[]
  /** Takes so long that only a short deadline shows it. */
  hangs?: boolean
}

export const SECRET = 'Sécret&<"+%#Zz9'

/** What a person has put into the list. */
export const HAND = '198.51.100.200'

/** The bans of ours that are there before a verb is tried. */
export const PRESENT = '203.0.113.1 sshd 0\n203.0.113.2 sshd 0\n203.0.113.3 sshd 0\n'

/** Each verb, and what is blocked of ours after its success. */
const VERBS: Record<
  string,
  { run: (target: Target, call: Call) => Promise<unknown>; blocked?: string[] }
> = {
  ban: {
    run: (target, call) =>
      changeOne(target, call, {
        verb: 'ban',
        lease: leasesFrom('198.51.100.7 sshd 0')[0] as Lease,
      }),
    blocked: ['198.51.100.7', '203.0.113.1', '203.0.113.2', '203.0.113.3'],
  },
  unban: {
    run: (target, call) =>
      changeOne(target, call, {
        verb: 'unban',
        address: parseAddress('203.0.113.1'),
        jail: 'sshd',
      }),
    blocked: ['203.0.113.2', '203.0.113.3'],
  },
  sync: {
    run: (target, call) =>
      target.sync(call, leasesFrom('198.51.100.7 sshd 0\n203.0.113.2 sshd 0\n')),
    blocked: ['198.51.100.7', '203.0.113.2'],
  },
  flush: { run: (target, call) => target.sync(call, []), blocked: [] },
  start: { run: (target, call) => target.start(call) },
  check: { run: (target, call) => target.check(call) },
  list: { run: (target, call) => target.list(call) },
}

/** Seconds that a verb may take in the matrix. */
const DEADLINE = 6

/**
 * Runs each verb against one fault: the exit code is one of the right ones, a success is on the box,
 * nothing of another hand is touched, the deadline holds, and no secret is in any output.
 */
export async function tryFault<S extends ApplianceSimulator<Mishaps> & { blocked(): string[] }>(
  kind: Kind<S>,
  fault: Case<S>,
  parts: { seed(world: World<S>): Promise<void>; foreign(sim: S): string },
): Promise<void> {
  for (const [verb, { run: work, blocked }] of Object.entries(VERBS)) {
    if (fault.verbs && !fault.verbs.includes(verb)) continue
    await inWorld(kind, async (world) => {
      await parts.seed(world)
      const before = parts.foreign(world.sim)
      const began = Date.now()
      const config = world.configure(fault.hangs ? { deadline: '500ms' } : {})
      fault.break(world.sim)
      const lines: string[] = []
      const noted = (line: string) => void lines.push(line)
      const tried = world.within(
        (target, call) => work(target, { ...call, show: noted, say: noted }),
        { config, seconds: DEADLINE },
      )
      const error = await tried.then(
        () => undefined,
        (thrown: unknown) => thrown,
      )
      const code = error === undefined ? 0 : codeOf(error)
      const said = [...lines, error === undefined ? '' : messageOf(error)].join('\n')
      assert.ok(
        fault.codes.includes(code),
        `${verb}: ${code} ${said} ${code === 70 ? (error as Error).stack : ''}`,
      )
      if (code === 0 && blocked)
        assert.deepEqual(world.sim.blocked(), [...blocked, HAND].sort(), verb)
      assert.equal(parts.foreign(world.sim), before, `${verb}: what others put there`)
      assert.ok(Date.now() - began < (DEADLINE + 2) * 1000, `${verb}: the deadline`)
      for (const secret of [
        SECRET,
        Buffer.from(SECRET).toString('base64'),
        Buffer.from(`f2b:${SECRET}`).toString('base64'),
      ]) {
        assert.ok(!said.includes(secret), `${verb}: ${said}`)
      }
      assert.doesNotMatch(messageOf(error ?? ''), /\n/, verb)
    })
  }
}
