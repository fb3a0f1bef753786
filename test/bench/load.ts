import { connect, type Socket } from 'node:net'

/** What a server did under load. */
export interface Load {
  perSecond: number
  /** Milliseconds. */
  median: number
  p99: number
  /** Answers by status. */
  statuses: Map<number, number>
  megabytes: number
}

/**
 * Asks for one thing again and again over some connections, and only counts the bytes of the answers:
 * a client that parsed them would be the slower side. Reconnects where a server closes (HTTP/1.0).
 */
export async function load(
  url: URL,
  headers: string[],
  seconds: number,
  width: number,
): Promise<Load> {
  const request = [`GET ${url.pathname} HTTP/1.1`, `Host: ${url.host}`, ...headers, '', ''].join(
    '\r\n',
  )
  const times: number[] = []
  const statuses = new Map<number, number>()
  let bytes = 0
  const end = performance.now() + seconds * 1000
  const lane = async () => {
    const line = new Lane(url)
    while (performance.now() < end) {
      const began = performance.now()
      const { status, size } = await line.ask(request)
      times.push(performance.now() - began)
      statuses.set(status, (statuses.get(status) ?? 0) + 1)
      bytes += size
    }
    line.close()
  }
  const began = performance.now()
  await Promise.all(Array.from({ length: width }, lane))
  const spent = (performance.now() - began) / 1000
  times.sort((a, b) => a - b)
  const at = (share: number) => times[Math.floor(times.length * share)] ?? Number.NaN
  return {
    perSecond: times.length / spent,
    median: at(0.5),
    p99: at(0.99),
    statuses,
    megabytes: bytes / 1e6,
  }
}

/** One connection and the answer that is coming in on it. */
class Lane {
  readonly #url: URL
  // As much as the kernel has at once, always into the same memory.
  readonly #buffer = Buffer.allocUnsafe(1024 * 1024)
  #socket: Socket | undefined
  #head = ''
  #left = -1
  #size = 0
  #done: (answer: { status: number; size: number }) => void = () => {}
  #failed: (error: Error) => void = () => {}

  constructor(url: URL) {
    this.#url = url
  }

  close(): void {
    this.#socket?.destroy()
  }

  ask(request: string): Promise<{ status: number; size: number }> {
    this.#head = ''
    this.#left = -1
    this.#size = 0
    this.#socket ??= this.#connect()
    return new Promise((resolve, reject) => {
      this.#done = resolve
      this.#failed = reject
      this.#socket?.write(request)
    })
  }

  #connect(): Socket {
    const socket = connect({
      host: this.#url.hostname,
      port: Number(this.#url.port),
      onread: { buffer: this.#buffer, callback: (count) => this.#read(count) },
    })
    return socket.on('error', (error) => this.#failed(error))
  }

  #read(count: number): boolean {
    this.#size += count
    if (this.#left >= 0) this.#left -= count
    else this.#readHead(count)
    if (this.#left === 0) this.#finish()
    return true
  }

  #readHead(count: number): void {
    const before = this.#head.length
    this.#head += this.#buffer.toString('latin1', 0, Math.min(count, 2048))
    const cut = this.#head.indexOf('\r\n\r\n')
    if (cut < 0) return
    const length = Number(/content-length: (\d+)/i.exec(this.#head)?.[1] ?? 0)
    const body = / 304 /.test(this.#head.slice(0, 20)) ? 0 : length
    this.#left = body - (before + count - cut - 4)
    this.#head = this.#head.slice(0, cut)
  }

  #finish(): void {
    const [, version, status] = /^HTTP\/(1\.\d) (\d+)/.exec(this.#head) ?? []
    this.#left = -1
    if (version === '1.0' || /connection: close/i.test(this.#head)) {
      this.#socket?.destroy()
      this.#socket = undefined
    }
    this.#done({ status: Number(status), size: this.#size })
  }
}
