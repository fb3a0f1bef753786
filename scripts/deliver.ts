#!/usr/bin/env node
// Takes what Fail2Ban's action lines have queued to all targets: batched, in order, until it works.
// A target that is away keeps nobody else waiting, and gets everything when it is back.
//
//   f2b-deliver --follow
//
// Exit codes: f2b-deliver --help
import { main, noWords, textOption, type Values } from './lib/command.ts'
import { serveControl } from './lib/delivery/control.ts'
import { journalLog, SILENT } from './lib/delivery/log.ts'
import { loadAll, lockDelivery, openDeliverer } from './lib/delivery/open.ts'
import { accountInstead, runAs } from './lib/delivery-account.ts'
import { EXIT, Failure } from './lib/failure.ts'
import type { Loaded } from './lib/settled.ts'

/** Seconds that a new service waits for the old one to end. */
const HANDOVER = 30

void main({
  name: 'deliver',
  help: `Usage: f2b-deliver [--follow] [options]

Delivers what Fail2Ban's actions have queued (delivery = queued) to every target
in the configuration, and ends. Nothing leaves the queue before its target has
confirmed it; what can never work is rejected and shown by f2b-status.

  f2b-deliver             deliver what is queued now: from cron, or by hand
  f2b-deliver --follow    stay and deliver as it comes: what the systemd unit
                          runs

A target that fails is tried again, at the latest after 30 seconds, and at once
when it answers again; all others are served meanwhile. A firewall that has lost
its bans is filled again. A changed configuration is taken up within a second;
one that cannot be used changes nothing, and f2b-status says so.

Options
  --follow          do not end; log a line for each delivery on standard error
  --config FILE     default /etc/fail2ban-perimeter/config.yaml
                    (also --configfile)`,
  options: {
    follow: { type: 'boolean' },
    config: { type: 'string' },
    configfile: { type: 'string' },
  },
  async run(words, values) {
    noWords(words)
    const loaded = await loadAll(textOption(values, 'config') ?? textOption(values, 'configfile'))
    const { state_dir } = loaded.config
    const account = accountInstead(state_dir)
    if (account) return await runAs(account, state_dir)
    await (values.follow ? follow(loaded, values) : drain(loaded, values))
  },
})

async function drain(loaded: Loaded, values: Values): Promise<void> {
  const release = await lockDelivery(loaded)
  if (!release) {
    if (values.verbose) process.stderr.write('deliver: another f2b-deliver is at work\n')
    return
  }
  const deliverer = await openDeliverer(loaded, values, values.verbose ? journalLog() : SILENT)
  try {
    await deliverer.drain()
  } finally {
    await deliverer.close()
    release()
  }
}

async function follow(loaded: Loaded, values: Values): Promise<void> {
  const release = await lockDelivery(loaded, HANDOVER)
  if (!release) throw new Failure(EXIT.temporary, 'Cannot follow: another f2b-deliver is at work')
  const log = journalLog()
  const deliverer = await openDeliverer(loaded, values, log)
  const server = await serveControl(deliverer, loaded)
  log.info('ready', { targets: deliverer.names().length })
  // What is under way is finished and kept; what is queued waits for the next one.
  for (const signal of ['SIGTERM', 'SIGINT'] as const) process.once(signal, () => deliverer.stop())
  await deliverer.follow()
  server.close()
  server.closeAllConnections()
  await deliverer.close()
  release()
  log.info('ended')
}
