#!/usr/bin/env node
// The two daemons between net2banctl and the nodes' actions: `net2ban server` beside RabbitMQ
// forwards, `net2ban client` on every node carries out. https://github.com/sch3m4/net2ban
//
//   net2ban client --config /etc/fail2ban-perimeter/config.yaml
//
// Exit codes: net2ban --help
import { once } from 'node:events'
import { mkdirSync } from 'node:fs'
import { join } from 'node:path'
import { main, noWords, textOption, unknownWord, usageFailure, type Values } from './lib/command.ts'
import { loadConfig } from './lib/config.ts'
import { EXIT, Failure } from './lib/failure.ts'
import { tryLock } from './lib/lock.ts'
import { Client, releaseNode } from './lib/net2ban/client.ts'
import { net2banOf } from './lib/net2ban/party.ts'
import { Server } from './lib/net2ban/server.ts'
import { print } from './lib/print.ts'

void main({
  name: 'net2ban',
  help: `Usage: net2ban server|client [options]

Runs in the foreground until it is told to stop, and logs to standard output.
"mode" in the configuration must be the same word.

  net2ban server     takes what net2banctl sends, and forwards it to every
                     client; of several servers one works and the others stand
                     by
  net2ban client     runs the actions on this node, and ends each ban when its
                     time is over

Options
  --release         client: end all that is in force on this node, and do no
                    more; for a node that is no longer to be one
  --config FILE     default /etc/fail2ban-perimeter/config.yaml
                    (also --configfile)`,
  options: {
    config: { type: 'string' },
    configfile: { type: 'string' },
    release: { type: 'boolean' },
  },
  run,
})

async function run([word, ...rest]: string[], values: Values): Promise<void> {
  if (word !== 'server' && word !== 'client') {
    if (word === undefined) throw usageFailure('Say server or client')
    throw unknownWord('word', word, ['server', 'client'])
  }
  noWords(rest)
  if (values.release && word === 'server') throw usageFailure('--release is for a client')
  const given = textOption(values, 'config') ?? textOption(values, 'configfile')
  const loaded = loadConfig(given, 'net2ban')
  for (const warning of loaded.warnings) log(`warning: ${warning}`)
  const net2ban = net2banOf(loaded, word)
  const folder = join(loaded.config.state_dir, `net2ban-${word}`)
  mkdirSync(folder, { recursive: true, mode: 0o700 })
  const release = await tryLock(join(folder, 'lock'))
  if (!release) throw new Failure(EXIT.temporary, `Another net2ban ${word} runs on "${folder}"`)
  if (values.release) return await releaseNode(net2ban, folder, log).finally(release)
  const stop = told()
  const daemon =
    word === 'server'
      ? await Server.start(net2ban, folder, log)
      : await Client.start(net2ban, loaded.config, folder, log)
  await stop
  await daemon.close()
  release()
}

/** Resolves when systemd or an operator wants an end. */
function told(): Promise<unknown> {
  return Promise.race(['SIGTERM', 'SIGINT', 'SIGHUP'].map((signal) => once(process, signal)))
}

function log(line: string): void {
  print(`${line}\n`)
}
