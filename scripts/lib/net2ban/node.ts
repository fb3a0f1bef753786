// STUB until the node's half is merged.
import type { Lease } from '../lease.ts'
import type { Call } from './call.ts'
export interface Counts {
  added: number
  extended: number
  removed: number
  unchanged: number
}
export interface Node {
  run(call: Call, sentAt: number): Promise<'ran' | 'held' | 'over'>
  sync(
    file: string,
    name: string,
    leases: readonly Lease[],
    params: Readonly<Record<string, string>>,
  ): Promise<Counts>
  expire(): Promise<number | undefined>
  leases(): Iterable<Lease>
  close(): Promise<void>
}
export function openNode(_: {
  actionDir: string
  stateDir: string
  signal?: AbortSignal
  now?: () => number
  log?: (line: string) => void
}): Promise<Node> {
  return Promise.resolve({
    run: async (call) => {
      console.log('RUN', JSON.stringify(call))
      return 'ran'
    },
    sync: async (...all) => {
      console.log('SYNC', JSON.stringify(all))
      return { added: 0, extended: 0, removed: 0, unchanged: 0 }
    },
    expire: async () => undefined,
    leases: () => [],
    close: async () => {},
  })
}
