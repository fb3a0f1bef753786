import { readFileSync, renameSync, writeFileSync } from 'node:fs'
import { loadavg } from 'node:os'
import { join } from 'node:path'
import { type Bench, LOGIN, openBench } from '../lib/fortigate.ts'
import { installPackages, missingPackages } from '../lib/packages.ts'
import { type Server, startBareNode, startFlask, startNginx } from './servers.ts'
import { type Asked, type Load, load, median, WIDTH } from './wrk.ts'

const ENTRIES = 100_000
const SECONDS = 2
const ROUNDS = 3
const FLASK = 'document (Flask)'
const FEED = 'f2b-fortigate-feed'
const WAYS = ['kept open', 'new each time'] as const

/** One thing that is asked of one server. */
interface Row {
  name: string
  what: string
  server: Server
  headers: string[]
  /** A run for each way and round. */
  loads: Record<(typeof WAYS)[number], Load[]>
}

/**
 * The feed with 100,000 entries beside the document's own server and the physical floor, in one run on
 * one machine: requests a second for the whole list and for "unchanged", p99, processor time,
 * resident memory; and the feed once more while the list is rewritten every second. All take turns, so
 * that a busy moment hits all of them.
 */
export async function benchFortigate(): Promise<void> {
  await installPackages(missingPackages({ wrk: 'wrk', nginx: 'nginx-light' }))
  const bench = openBench()
  const text = list()
  writeFileSync(bench.list, text)
  const bare = text.replace(/ #.*/g, '')
  writeFileSync(join(bench.folder, 'blocked_ips_list.txt'), bare)
  const servers = await startAll(bench)
  const { feed, flask } = servers
  const idle = rss(feed.pid)
  console.log(
    `threat feed, ${ENTRIES} entries (${(bare.length / 1e6).toFixed(1)} MB), ${WIDTH} at once, median of ${ROUNDS} runs of ${SECONDS} s, load ${load1()}`,
  )
  const rows = await rowsOf(servers)
  for (let round = 0; round < ROUNDS; round++) await runAll(rows)
  const quiet = rss(feed.pid)
  for (const row of rows) show(row)
  const whole = rows.find((row) => row.server === feed && row.what === '200')
  if (!whole) throw new Error('The feed was not asked')
  const stop = rewriteEverySecond(bench.list, text)
  // Only the whole list: what a client knows of it is out of date after a second.
  const rewritten = { ...whole, what: '200, rewritten each second', loads: noLoads() }
  await runAll([rewritten], 3 * SECONDS)
  show(rewritten)
  stop()
  for (const what of ['200', '304']) compare(rows, what)
  console.log(
    `resident memory: feed ${idle} MB idle, ${quiet} MB after the load, ${rss(feed.pid)} MB after rewriting; Flask ${rss(flask.pid)} MB; load ${load1()}`,
  )
  for (const server of Object.values(servers)) server.stop()
  await bench.close()
}

async function startAll(bench: Bench) {
  const { folder } = bench
  const [flask, debug, node, nginx] = await Promise.all([
    startFlask(folder, 'plain'),
    startFlask(folder, 'debug'),
    startBareNode(folder),
    startNginx(folder),
  ])
  const { pid } = await bench.startFeed()
  return {
    feed: { pid, url: new URL('/blocked-ips', bench.url), stop() {} },
    flask,
    debug,
    node,
    nginx,
  }
}

async function rowsOf(servers: Awaited<ReturnType<typeof startAll>>): Promise<Row[]> {
  const { feed, flask, debug, node, nginx } = servers
  const row = (name: string, what: string, server: Server, ...headers: string[]): Row => {
    const login = server === feed ? [`Authorization: ${LOGIN.authorization}`] : []
    return { name, what, server, headers: [...login, ...headers], loads: noLoads() }
  }
  const unchanged = async (name: string, server: Server) =>
    row(name, '304', server, await etag(server.url))
  return [
    row(FLASK, '200', flask),
    row('  as published, debug=True', '200', debug),
    row(FEED, '200', feed),
    row(FEED, '200 gzip', feed, 'Accept-Encoding: gzip'),
    row('floor: bare node:http', '200', node),
    row('floor: nginx, sendfile', '200', nginx),
    await unchanged(FLASK, flask),
    await unchanged(FEED, feed),
    await unchanged('floor: bare node:http', node),
    await unchanged('floor: nginx', nginx),
  ]
}

async function runAll(rows: Row[], seconds = SECONDS): Promise<void> {
  for (const { server, headers, loads } of rows) {
    for (const way of WAYS) {
      const asked: Asked = { ...server, headers, closing: way === 'new each time' }
      loads[way].push(await load(asked, seconds))
    }
  }
}

function show({ name, what, loads }: Row): void {
  const cells = WAYS.map((way) => {
    const { perSecond, p99, cpu } = median(loads[way])
    return `${way} ${perSecond.toFixed(0).padStart(6)}/s p99 ${p99.toFixed(1).padStart(5)} ms cpu ${cpu.toFixed(2).padStart(5)} ms`
  })
  console.log(`${name.padEnd(27)} ${what.padEnd(26)} ${cells.join('   ')}`)
}

/** Everybody's share of the document's throughput, and of the processor time it takes for an answer. */
function compare(rows: Row[], what: string): void {
  const theirs = rows.find((row) => row.name === FLASK && row.what === what)
  if (!theirs) return
  for (const row of rows.filter((r) => r.what.startsWith(what) && r !== theirs)) {
    const cells = WAYS.map((way) => {
      const [a, b] = [median(row.loads[way]), median(theirs.loads[way])]
      return `${way} ${(a.perSecond / b.perSecond).toFixed(1)} (by processor time ${(b.cpu / a.cpu).toFixed(1)})`
    })
    console.log(`times the document: ${row.name.trim()}, ${row.what}: ${cells.join(', ')}`)
  }
}

function noLoads(): Row['loads'] {
  return { 'kept open': [], 'new each time': [] }
}

function list(): string {
  const line = (i: number) => `${20 + (i >> 16)}.${(i >> 8) & 255}.${i & 255}.9 # sshd 0 web1\n`
  return Array.from({ length: ENTRIES }, (_, i) => line(i)).join('')
}

async function etag(url: URL): Promise<string> {
  const answer = await fetch(url, { headers: { ...LOGIN, 'accept-encoding': 'identity' } })
  await answer.arrayBuffer()
  return `If-None-Match: ${answer.headers.get('etag')}`
}

function rewriteEverySecond(path: string, text: string): () => void {
  let more = ''
  const timer = setInterval(() => {
    more += `198.51.100.${more.length % 200} # sshd 0 web1\n`
    writeFileSync(`${path}.beside`, text + more)
    renameSync(`${path}.beside`, path)
  }, 1000)
  return () => clearInterval(timer)
}

/** Resident memory in MB. */
function rss(pid: number): number {
  const [, kilobytes = '0'] =
    /VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${pid}/status`, 'utf8')) ?? []
  return Math.round(Number(kilobytes) / 1024)
}

function load1(): string {
  return (loadavg()[0] ?? 0).toFixed(1)
}
