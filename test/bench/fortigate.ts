import { type ChildProcess, spawn } from 'node:child_process'
import { readFileSync, renameSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { join, resolve } from 'node:path'
import { LOGIN, openBench, until } from '../lib/fortigate.ts'
import { type Load, load } from './load.ts'

const ENTRIES = 100_000
const SECONDS = 6
const WIDTH = 8
const AUTHORIZATION = `Authorization: ${LOGIN.authorization}`

/**
 * The feed with 100,000 entries beside the document's own server, in one run on one machine: requests
 * a second for the whole list and for "unchanged", p99, resident memory; and the feed once more while
 * the list is rewritten every second.
 */
export async function benchFortigate(): Promise<void> {
  const bench = openBench()
  const text = list()
  writeFileSync(bench.list, text)
  const bare = text.replace(/ #.*/g, '')
  writeFileSync(join(bench.folder, 'blocked_ips_list.txt'), bare)
  const flask = await startFlask(bench.folder)
  const feed = await bench.startFeed()
  const ours = new URL('/blocked-ips', bench.url)
  const idle = rss(feed.pid)
  console.log(
    `threat feed, ${ENTRIES} entries (${(bare.length / 1e6).toFixed(1)} MB), ${WIDTH} connections, ${SECONDS} s each`,
  )
  const theirs200 = await row('document (Flask), 200', flask.url, [])
  const ours200 = await row('f2b-fortigate-feed, 200', ours, [AUTHORIZATION])
  const gzip = ['Accept-Encoding: gzip']
  await row('f2b-fortigate-feed, 200 gzip', ours, [AUTHORIZATION, ...gzip])
  const theirs304 = await row('document (Flask), 304', flask.url, [await etag(flask.url)])
  const ours304 = await row('f2b-fortigate-feed, 304', ours, [AUTHORIZATION, await etag(ours)])
  const quiet = rss(feed.pid)
  const stop = rewriteEverySecond(bench.list, text)
  await row('  the same, 200, list rewritten each second', ours, [AUTHORIZATION])
  await row('  the same, 304 asked, list rewritten each second', ours, [
    AUTHORIZATION,
    await etag(ours),
  ])
  stop()
  console.log(
    `times the document: 200 ${ratio(ours200, theirs200)}, 304 ${ratio(ours304, theirs304)}`,
  )
  console.log(
    `resident memory: feed ${idle} MB idle, ${quiet} MB after the load, ${rss(feed.pid)} MB after rewriting; Flask ${rss(flask.child.pid ?? 0)} MB`,
  )
  flask.child.kill()
  await bench.close()
}

async function row(name: string, url: URL, headers: string[]): Promise<Load> {
  const result = await load(url, headers, SECONDS, WIDTH)
  const { perSecond, median, p99, statuses } = result
  const answers = [...statuses].map(([status, count]) => `${count} x ${status}`).join(', ')
  console.log(
    `${name.padEnd(52)} ${perSecond.toFixed(0).padStart(7)}/s  median ${median.toFixed(1)} ms  p99 ${p99.toFixed(1)} ms  (${answers})`,
  )
  return result
}

function ratio(ours: Load, theirs: Load): string {
  return (ours.perSecond / theirs.perSecond).toFixed(1)
}

function list(): string {
  const line = (i: number) => `${20 + (i >> 16)}.${(i >> 8) & 255}.${i & 255}.9 # sshd 0 web1\n`
  return Array.from({ length: ENTRIES }, (_, i) => line(i)).join('')
}

async function startFlask(folder: string): Promise<{ child: ChildProcess; url: URL }> {
  const port = await freePort()
  const script = resolve('test/bench/web_app.py')
  const child = spawn('python3', [script, folder, String(port)], { stdio: 'ignore' })
  const url = new URL(`http://127.0.0.1:${port}/blocked-ips`)
  await until('Flask', async () => (await fetch(url).catch(() => undefined))?.status === 200)
  return { child, url }
}

async function freePort(): Promise<number> {
  const server = createServer()
  await new Promise<void>((done) => server.listen(0, '127.0.0.1', done))
  const { port } = server.address() as AddressInfo
  await new Promise((done) => server.close(done))
  return port
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
