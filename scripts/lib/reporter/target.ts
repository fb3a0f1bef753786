import { spawn } from 'node:child_process'
import { textOption } from '../command.ts'
import type { Loaded } from '../settled.ts'
import type { Call, ExtraVerb, Target } from '../target.ts'
import { onEach } from '../verbs.ts'
import { Reporter } from './reporter.ts'
import type { Service } from './service.ts'

/**
 * A reporter as a target: what all services have in common. `list` is what the service was told,
 * as our ledger has it; asking the service costs calls, and calls are few.
 */
export function reporterTarget(reporter: Reporter): Target {
  return {
    name: reporter.service.name,

    // The service needs no set-up, and what was reported stays until its time is over.
    async start() {},
    check: (call) => reporter.resume(call),
    list: (call) => reporter.leases(call),
    change: (call, changes) => reporter.change(call, changes),
    sync: (call, leases) => reporter.sync(call, leases),
    manual: (call) => reporter.wanted(call),
  }
}

/** Starts this very script in the background, with no descriptor that Fail2Ban would wait for. */
export function startReport({ values }: Call): void {
  const config = textOption(values, 'config') ?? textOption(values, 'configfile')
  const [script = ''] = process.argv.slice(1)
  const args = [...process.execArgv, script, 'report', ...(config ? ['--config', config] : [])]
  const child = spawn(process.execPath, args, { detached: true, stdio: 'ignore' })
  // What is kept then waits for the next ban, as if the process had been killed.
  child.on('error', () => {})
  child.unref()
}

/** The verb that `startReport` runs: it ends when nothing is left to tell. */
export function reportVerb(open: (loaded: Loaded) => { reporter: Reporter }): ExtraVerb {
  return {
    help: 'report what is kept when a burst is over (a ban starts it)',
    seconds: 3600,
    run: async (call, loaded) => {
      const { reporter } = open(loaded)
      await onEach([reporterTarget(reporter)], 'report', () => reporter.report(call))
    },
  }
}

/** The target of a service that is configured, for those who serve all siblings. */
export function openReporter(service: Service, { config }: Loaded): Target[] {
  return [reporterTarget(new Reporter(service, config.state_dir))]
}
