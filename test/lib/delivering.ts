import { setTimeout as sleep } from 'node:timers/promises'
import type { Machine } from './machine.ts'
import type { Background } from './process.ts'

/** `f2b-deliver --follow` on a machine, as systemd keeps it: killed, it is started again. */
export interface Delivering {
  /** What it has logged, over all its lives. */
  log(): string
  /** Ends it without a word; it comes back. */
  kill(): Promise<void>
  /** Ends it as systemd does, for good. @returns its exit code */
  stop(): Promise<number>
}

/** The action of jails whose bans are queued. */
export const QUEUED =
  'iptables-remote[name=%(__name__)s, port="%(port)s", protocol="%(protocol)s", delivery=queued]'

export async function startDelivering(machine: Machine): Promise<Delivering> {
  const logs: string[] = []
  let stopping = false
  let current: Background | undefined
  const start = async (): Promise<void> => {
    const started = await machine.spawn(['f2b-deliver', '--follow'])
    current = started
    void started.ended().then(async () => {
      logs.push(started.stderr())
      await sleep(200)
      if (!stopping) await start().catch(() => {}) // the machine is off
    })
  }
  await start()
  return {
    log: () => logs.join('') + (current?.stderr() ?? ''),
    kill: async () => current?.kill('SIGKILL'),
    async stop() {
      stopping = true
      await current?.kill('SIGTERM')
      return (await current?.ended()) ?? -1
    },
  }
}
