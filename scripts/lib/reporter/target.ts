import type { Loaded } from '../settled.ts'
import type { Target } from '../target.ts'
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
    async stop() {},

    check: (call) => reporter.resume(call),
    flush: (call) => reporter.flush(call),
    ban: (call, lease) => reporter.ban(call, lease),
    unban: (call, address, jail) => reporter.unban(call, address, jail),
    list: (call) => reporter.leases(call),
    sync: (call, leases) => reporter.sync(call, leases),
    change: (call, changes) => reporter.change(call, changes),
    byHand: (call) => reporter.wanted(call),
  }
}

/** The target of a service that is configured, for those who serve all siblings. */
export function openReporter(service: Service, { config }: Loaded): Target[] {
  return [reporterTarget(new Reporter(service, config.state_dir))]
}
