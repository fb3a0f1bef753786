import { askFail2Ban, type Jail } from '../fail2ban.ts'
import { formatLease, type Lease } from '../lease.ts'
import { type Naming, readNaming } from '../ports.ts'
import type { Loaded } from '../settled.ts'
import { configuredKinds, type Kind } from '../siblings.ts'
import { readLeases } from '../sync-input.ts'

/** What Fail2Ban has banned for one sibling. */
export interface Truth {
  leases: readonly Lease[]
  namings: Map<string, Naming>
  /** Whether any jail has an action that goes there. */
  used: boolean
}

/**
 * What Fail2Ban has banned now, for each sibling that is configured.
 *
 * @throws Failure 75 if Fail2Ban cannot be asked
 */
export async function askTruth(loaded: Loaded): Promise<Map<string, Truth>> {
  const { config } = loaded
  const kinds = configuredKinds(config)
  const isOurs = (command: string): boolean => kinds.some(({ uses }) => uses.test(command))
  const jails = await askFail2Ban(config.fail2ban, config.owner, isOurs)
  return new Map(kinds.map((kind) => [kind.name, truthOf(loaded, kind, jails)]))
}

/** Without what may never be banned: Fail2Ban bans by hand whatever it is told. */
function truthOf({ config }: Loaded, kind: Kind, jails: Jail[]): Truth {
  const uses = jails.filter(({ actions }) => actions.some(({ command }) => kind.uses.test(command)))
  const lines = uses.flatMap(({ leases }) => leases.map(formatLease))
  const call = { config, owner: config.owner, jail: undefined }
  const { leases } = readLeases(lines.join('\n'), call, { 'allow-empty': true })
  return {
    leases,
    used: uses.length > 0,
    namings: new Map(uses.flatMap((jail) => namingOf(jail, kind))),
  }
}

/** What the action of the jail blocks; an action without ports says something that is no port. */
function namingOf(jail: Jail, kind: Kind): [string, Naming][] {
  const action = jail.actions.find(({ command }) => kind.uses.test(command))
  try {
    return action ? [[jail.name, readNaming(action.ports, action.protocol)]] : []
  } catch {
    return []
  }
}
