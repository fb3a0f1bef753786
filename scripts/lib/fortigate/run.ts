import { join } from 'node:path'
import type { Worker } from 'node:worker_threads'
import { parseAddress } from '../address.ts'
import { now } from '../lease.ts'
import { neverBan } from '../never.ts'
import { print } from '../print.ts'
import type { Fortigate } from '../settings/fortigate.ts'
import type { Config } from '../settings/schema.ts'
import { Activity } from './activity.ts'
import { Feed } from './feed.ts'
import { Guesses } from './guesses.ts'
import { Receiver } from './receiver.ts'
import { type Served, serve } from './server.ts'
import { statusOf } from './status.ts'

/** How often the alarms are looked at when nobody else does, and what happened is written down. */
const LOOK_MS = 30_000

/** How often a changed list is rendered anyway: a device that comes once a minute need not wait. */
const RENDER_MS = 2_000

/**
 * Runs the web server until it is told to end. What happened is kept in systemd's
 * `$STATE_DIRECTORY`, if there is one, so that a restart forgets neither devices nor the last day.
 */
export async function runFeed(
  config: Config,
  settings: Fortigate,
  startWorker: () => Worker,
): Promise<void> {
  const state = process.env.STATE_DIRECTORY
  const activity = new Activity(now(), state && join(state, 'activity.json'))
  const feed = makeFeed(config, settings, startWorker)
  feed.onSnapshot = ({ added }) => activity.banned(added, now())
  const proxies = settings.feed.proxies.map(parseAddress)
  const receiver = new Receiver(settings.webhook, proxies, config.never_ban, activity)
  let served: Served | undefined
  const status = async () => {
    const made = await statusOf(settings, feed, activity, receiver.trouble)
    const old = served?.renew()
    return old === undefined ? made : { ...made, alarms: [...made.alarms, old] }
  }
  const watch = watcher(async () => (await status()).alarms)
  const site = {
    settings: settings.feed,
    proxies,
    owner: config.owner,
    feed,
    receiver,
    activity,
    guesses: new Guesses(),
    status,
    log,
  }
  served = await serve(site)
  const { server } = served
  const { address, port } = server.address() as { address: string; port: number }
  log(
    `serving ${settings.list_file} on ${settings.feed.cert_file ? 'https' : 'http'}://${address}:${port}`,
  )
  const rendering = setInterval(() => feed.snapshot().catch(() => {}), RENDER_MS) // an alarm tells
  const looking = setInterval(() => void look(), LOOK_MS)
  const look = async () => {
    await watch()
    const trouble = activity.save()
    if (trouble) log(`warning: ${trouble}`)
  }
  await look()
  await new Promise((resolve) => {
    process.once('SIGTERM', resolve)
    process.once('SIGINT', resolve)
  })
  clearInterval(rendering)
  clearInterval(looking)
  activity.save()
  server.close()
  server.closeAllConnections()
  await feed.close()
}

function makeFeed(config: Config, { list_file, feed }: Fortigate, startWorker: () => Worker): Feed {
  const rules = {
    path: list_file,
    maxEntries: feed.max_entries,
    never: neverBan(config.never_ban),
    minPrefix: config.min_prefix,
  }
  return new Feed(rules, startWorker)
}

/** Logs each alarm once when it comes, and once when it has gone. Figures in it may change. */
function watcher(alarms: () => Promise<string[]>): () => Promise<void> {
  let known = new Map<string, string>()
  return async () => {
    const present = new Map((await alarms()).map((text) => [text.replace(/\d+/g, '#'), text]))
    for (const [key, text] of present) if (!known.has(key)) log(`alarm: ${text}`)
    for (const [key, text] of known) if (!present.has(key)) log(`over: ${text}`)
    known = present
  }
}

/** A line for the journal, which adds the time. */
function log(line: string): void {
  print(`${line}\n`)
}
