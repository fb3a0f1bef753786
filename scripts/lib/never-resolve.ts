import { mkdirSync } from 'node:fs'
import { dirname } from 'node:path'
import { replaceDurably } from './durable.ts'
import { RESOLVED, readResolved, targetHosts } from './never.ts'
import { run } from './run.ts'
import type { Config } from './settings/schema.ts'

/** Milliseconds for all names, and until a name is looked up again. */
const PATIENCE = 3_000
const AGAIN = 300_000

/**
 * Looks up the names of the configured targets, for `neverBan`: whoever bans only reads what is found
 * here, since no ban may wait for a name service. What has no answer in time keeps the addresses that
 * it had. Called where something waits for nobody: by f2b-sync.
 */
export async function resolveTargets(config: Config): Promise<void> {
  if (process.getuid?.() !== 0) return
  const known = readResolved()
  const hosts = targetHosts(config).names
  const isFresh = hosts.every(({ name }) => Date.now() - (known[name]?.at ?? 0) < AGAIN)
  if (isFresh && Object.keys(known).length === hosts.length) return
  const signal = AbortSignal.timeout(PATIENCE)
  const entries = await Promise.all(
    hosts.map(async ({ name, ssh }) => {
      const addresses = await addressesOf(name, ssh, signal)
      const entry = addresses.length > 0 ? { at: Date.now(), addresses } : known[name]
      return [name, entry ?? { at: 0, addresses: [] }] as const
    }),
  )
  try {
    mkdirSync(dirname(RESOLVED), { recursive: true, mode: 0o755 })
    replaceDurably(RESOLVED, JSON.stringify(Object.fromEntries(entries)), 0o644)
  } catch {
    // A full /run: the next sync tries again.
  }
}

/** What the system knows of a name; nothing if it does not say so in time. */
async function addressesOf(name: string, ssh: boolean, signal: AbortSignal): Promise<string[]> {
  const host = ssh ? await hostOf(name, signal) : name
  const { code, stdout } = await run('getent', ['ahosts', host], { signal })
  if (code !== 0) return []
  return [...new Set(stdout.split('\n').flatMap((line) => line.split(/\s+/)[0] || []))]
}

/** What ssh_config calls a host by. */
async function hostOf(name: string, signal: AbortSignal): Promise<string> {
  const { stdout } = await run('ssh', ['-G', '--', name], { signal })
  return /^hostname (\S+)$/m.exec(stdout)?.[1] ?? name
}
