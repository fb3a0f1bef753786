#!/usr/bin/env node
// Serves the list that f2b-fortigate keeps as a threat feed, takes in the failed logins that
// FortiGates post, and shows people how things stand.
//
//   f2b-fortigate-feed --config /etc/fail2ban-perimeter/config.yaml
//
// Exit codes: f2b-fortigate-feed --help
import { realpathSync } from 'node:fs'
import { isMainThread, Worker } from 'node:worker_threads'
import { main, textOption, usageFailure, type Values } from './lib/command.ts'
import { loadConfig } from './lib/config.ts'
import { EXIT, Failure } from './lib/failure.ts'
import { runFeed } from './lib/fortigate/run.ts'
import { runWorker } from './lib/fortigate/worker.ts'
import { quote } from './lib/lease.ts'

const HELP = `Usage: f2b-fortigate-feed [options]

Serves the blocked addresses as a threat feed to FortiGates (and to Sophos SFOS,
Palo Alto, pfSense, OPNsense), takes in the failed logins that FortiGates post,
and shows people how things stand. Section "fortigate" of the configuration says
where it listens and who may ask.

  GET  /blocked-ips   /blocked-ips/ipv4   /blocked-ips/ipv6
  POST /receive-logs
  GET  /   /metrics   /healthz

Options
  --config FILE     default /etc/fail2ban-perimeter/config.yaml
                    (also --configfile)`

if (isMainThread) {
  void main({
    name: 'fortigate-feed',
    help: HELP,
    options: { config: { type: 'string' }, configfile: { type: 'string' } },
    run,
  })
} else {
  runWorker()
}

async function run(positionals: string[], values: Values): Promise<void> {
  const [word] = positionals
  if (word !== undefined) throw usageFailure(`One word too many ${quote(word)}`)
  const given = textOption(values, 'config') ?? textOption(values, 'configfile')
  const { config, path, warnings } = loadConfig(given, 'fortigate.feed', 'fortigate.webhook')
  if (!config.fortigate) throw new Failure(EXIT.config, `${path}: missing section "fortigate"`)
  for (const warning of warnings) process.stderr.write(`fortigate-feed: warning: ${warning}\n`)
  await runFeed(config, config.fortigate, startWorker)
}

/** This very script again, as a thread; the command may be a link to it. */
function startWorker(): Worker {
  // Rendering leaves much garbage and keeps little: a small nursery keeps the process small.
  return new Worker(realpathSync(process.argv[1] ?? ''), {
    resourceLimits: { maxYoungGenerationSizeMb: 8 },
  })
}
