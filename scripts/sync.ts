#!/usr/bin/env node
// Makes the firewalls equal to what Fail2Ban has banned now: whatever went wrong before, one sync
// repairs it.
//
//   f2b-sync --dry-run
//
// Exit codes: f2b-sync --help
import { spawn } from 'node:child_process'
import { mkdirSync } from 'node:fs'
import { setTimeout } from 'node:timers/promises'
import { main, textOption, usageFailure, type Values } from './lib/command.ts'
import { askFail2Ban, type Jail } from './lib/fail2ban.ts'
import { codeOf, EXIT } from './lib/failure.ts'
import { firewallTargets } from './lib/firewalls.ts'
import { formatLease, type Lease, NO_JAIL } from './lib/lease.ts'
import { lock } from './lib/lock.ts'
import { type Loaded, loadFirewalls } from './lib/settled.ts'
import { readLeases } from './lib/sync-input.ts'
import { type Call, describe, makeCall, onEach, type Target } from './lib/verbs.ts'

/** How long Fail2Ban may take to answer again, seconds: a restart with many bans, a reboot. */
const PATIENCE = 600

void main({
  name: 'sync',
  help: `Usage: f2b-sync [target...] [options]

Asks Fail2Ban for every ban of every jail that uses iptables-remote and makes the firewalls equal to
it. A ban without a jail (f2b-firewall ban without --name) is left alone. Prints per target
"added N, extended N, removed N, unchanged N".

  f2b-sync --dry-run          what is missing, extra or has another end
  f2b-sync edge1              this firewall only

Options
  --config FILE     default /etc/fail2ban-perimeter/config.yaml (also --configfile)
  --dry-run         show what would be changed, change nothing
  --later           return at once, and sync in the background as soon as Fail2Ban answers; this is
                    what an action may call, since Fail2Ban cannot be asked from inside one`,
  options: {
    config: { type: 'string' },
    configfile: { type: 'string' },
    'dry-run': { type: 'boolean' },
    later: { type: 'boolean' },
    wait: { type: 'boolean' },
  },
  run,
})

async function run(names: string[], values: Values): Promise<void> {
  const given = textOption(values, 'config') ?? textOption(values, 'configfile')
  if (values.later) return runLater(given)
  const loaded = await loadFirewalls(given)
  const targets = chosen(firewallTargets(loaded), names)
  const work = () => syncAll(loaded, targets, values)
  await (values.wait ? patiently(loaded, work) : work())
}

/** Starts ourselves again in the background, with no descriptor that Fail2Ban would wait for. */
function runLater(given: string | undefined): void {
  const options = given ? ['--config', given] : []
  const [node, script] = [process.execPath, process.argv[1] ?? '']
  spawn(node, [script, '--wait', ...options], { detached: true, stdio: 'ignore' }).unref()
}

async function syncAll(loaded: Loaded, targets: Target[], values: Values): Promise<void> {
  const { config } = loaded
  const jails = await askFail2Ban(config.fail2ban, config.owner, /\b(banip|f2b-firewall)\b/)
  const call = { ...makeCall(loaded, values, PATIENCE), namings: namingsOf(jails) }
  await onEach(targets, 'sync', async (target) => {
    const counts = await target.sync(call, await wanted(target, call, jails))
    const name = targets.length > 1 ? `${target.name}: ` : ''
    call.show(`${name}${describe(counts)}`)
  })
}

/** Everything that Fail2Ban bans, and what somebody banned there by hand without a jail. */
async function wanted(target: Target, call: Call, jails: Jail[]): Promise<Lease[]> {
  const byHand = (await target.list(call)).filter((lease) => lease.jail === NO_JAIL)
  const lines = [...byHand, ...jails.flatMap((jail) => jail.leases)].map(formatLease)
  return readLeases(lines.join('\n'), call, { 'allow-empty': true }).leases
}

/**
 * Waits until Fail2Ban answers. It is stopping, or busy with the very command that asked for us, so
 * the first seconds are not even tried. One waits for all who ask meanwhile.
 */
async function patiently(loaded: Loaded, work: () => Promise<void>): Promise<void> {
  mkdirSync(loaded.config.state_dir, { recursive: true, mode: 0o755 })
  const release = await lock(`${loaded.config.state_dir}/sync.lock`, 0)
  try {
    for (const end = Date.now() + PATIENCE * 1000; Date.now() < end; ) {
      await setTimeout(2000)
      try {
        return await work()
      } catch (error) {
        if (codeOf(error) !== EXIT.temporary && codeOf(error) !== EXIT.unreachable) throw error
      }
    }
  } finally {
    release()
  }
}

function namingsOf(jails: Jail[]): Map<string, { ports: string; protocol: string }> {
  return new Map(jails.map(({ name, ports, protocol }) => [name, { ports, protocol }]))
}

function chosen(targets: Target[], names: string[]): Target[] {
  if (names.length === 0) return targets
  const unknown = names.find((name) => !targets.some((target) => target.name === name))
  if (unknown) throw usageFailure(`Unknown target "${unknown}"`)
  return targets.filter((target) => names.includes(target.name))
}
