import { type ChildProcess, spawn } from 'node:child_process'
import { writeFileSync } from 'node:fs'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { join, resolve } from 'node:path'
import { waitUntil } from '../lib/wait.ts'

/** A server that serves the list. */
export interface Server {
  pid: number
  url: URL
  stop(): void
}

/** The document's server; `debug` as it is published, `plain` without the debugger, which is faster. */
export function startFlask(folder: string, mode: 'debug' | 'plain'): Promise<Server> {
  const script = resolve('test/bench/web_app.py')
  return start('blocked-ips', (port) => spawnQuiet('python3', [script, folder, port, mode]))
}

/** Node's own HTTP server that sends one buffer: what any server on Node could do at best. */
export function startBareNode(folder: string): Promise<Server> {
  const args = [resolve('test/bench/floor.mjs'), join(folder, 'blocked_ips_list.txt')]
  return start('', (port) => spawnQuiet(process.execPath, [...args, port]))
}

/** nginx with sendfile: what the kernel could do at best. */
export function startNginx(folder: string): Promise<Server> {
  return start('blocked_ips_list.txt', (port) => {
    const config = join(folder, 'nginx.conf')
    writeFileSync(config, nginxConfig(folder, port))
    return spawnQuiet('nginx', ['-c', config, '-e', join(folder, 'nginx.log')])
  })
}

function nginxConfig(folder: string, port: string): string {
  return `daemon off; master_process off; pid ${folder}/nginx.pid; user root;
events { worker_connections 256; }
http {
  access_log off; sendfile on; tcp_nopush on; keepalive_requests 1000000;
  server { listen 127.0.0.1:${port}; root ${folder}; }
}
`
}

function spawnQuiet(file: string, args: string[]): ChildProcess {
  return spawn(file, args, { stdio: 'ignore' })
}

async function start(path: string, launch: (port: string) => ChildProcess): Promise<Server> {
  const port = await freePort()
  const child = launch(String(port))
  const url = new URL(`http://127.0.0.1:${port}/${path}`)
  await waitUntil(child.spawnfile, async () => {
    if (child.exitCode !== null) throw new Error(`${child.spawnargs.join(' ')} ended`)
    return (await fetch(url).catch(() => undefined))?.status === 200
  })
  return { pid: child.pid ?? 0, url, stop: () => void child.kill() }
}

async function freePort(): Promise<number> {
  const server = createServer()
  await new Promise<void>((done) => server.listen(0, '127.0.0.1', done))
  const { port } = server.address() as AddressInfo
  await new Promise((done) => server.close(done))
  return port
}
