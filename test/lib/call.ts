import type { Call } from '../../scripts/lib/target.ts'

/** What a verb is told, for tests that call a sibling without a process around it. */
export function makeCall(overrides: Partial<Call> = {}): Call & { shown: string[] } {
  const shown: string[] = []
  return {
    config: undefined as never,
    owner: 'web1',
    jail: undefined,
    ports: undefined,
    protocol: undefined,
    dryRun: false,
    verbose: false,
    signal: new AbortController().signal,
    show: (line) => void shown.push(line),
    say: () => {},
    progress: () => {},
    values: {},
    shown,
    ...overrides,
  }
}
