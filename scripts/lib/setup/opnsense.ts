import { type Options, textOption } from '../command.ts'
import { EXIT, Failure } from '../failure.ts'
import { JsonApi } from '../json-api.ts'
import { refusalOf } from '../opnsense/client.ts'
import { aliasOf, opnsenseTargets } from '../opnsense/target.ts'
import { type Opnsense, opnsense } from '../settings/opnsense.ts'
import type { Call } from '../target.ts'
import { APPLIANCE_OPTIONS, applianceHelp, type Kind, secretOf, tryTarget } from './appliance.ts'
import { ask, say } from './plan.ts'

/** The options that `f2b-setup opnsense` has. */
export const OPNSENSE_OPTIONS: Options = {
  ...APPLIANCE_OPTIONS,
  'key-file': { type: 'string' },
  alias: { type: 'string' },
}

export const OPNSENSE_HELP = `f2b-setup opnsense
  --address HOST[:PORT] the firewall's web console; port 443 if left out
  --key-file FILE      the API key as the web console hands it out; asked for
                       if left out
${applianceHelp('firewall')}
  --alias NAME         the alias for this server alone; default f2b_ and the
                       server's name`

/** `f2b-setup opnsense`: makes the alias, if the key may. */
export const OPNSENSE: Kind<Opnsense> = {
  name: 'opnsense',
  action: 'opnsense-perimeter',
  schema: opnsense,
  port: '443',
  path: '',
  seen: 'a browser shows as the SHA-256 fingerprint of the web console',
  secret: 'key',

  async login(values) {
    const typed = async () => {
      const key = await ask('API key: ', '--key-file')
      return `key=${key}\nsecret=${await ask('Its secret: ', '--key-file', true)}`
    }
    return { secret: await secretOf(values, 'key-file', typed) }
  },

  keys(values, known) {
    const alias = textOption(values, 'alias') ?? known.alias
    return alias === undefined ? {} : { alias }
  },

  async tryOut(settings, trial) {
    const { owner } = trial.call
    const alias = aliasOf(settings, owner)
    const isThere = await hasAlias(settings, alias, trial.call)
    for (const firewall of isThere ? opnsenseTargets([settings], owner) : []) {
      await tryTarget(firewall, trial)
    }
    say(`the key for ${settings.name} may read and change tables`)
    const make = `an alias "${alias}" of type External (advanced), which the key may not make;
     then run here: f2b-opnsense start`
    return `Three things are left to do in the web console of ${settings.name}:
  1. Firewall > Aliases: ${isThere ? `"${alias}" is there` : make}. As its
     Expiration, take the longest ban time of Fail2Ban: it ends bans should this server be lost.
  2. Firewall > Rules > Floating: a rule at the very top, action Block, quick, interface WAN,
     direction in, TCP/IP version IPv4+IPv6, source "${alias}", everything else any.
  3. System > Access > Users: leave the key's user no privilege but
     "Diagnostics: PF Table IP addresses".`
  },
}

/** Whether there is such a table, which is made if the key may. @throws Failure */
async function hasAlias(settings: Opnsense, alias: string, call: Call): Promise<boolean> {
  const api = new JsonApi('opnsense', settings)
  const isThere = async () => {
    const { status, body } = await api.ask(call, 'GET', '/api/firewall/alias_util/aliases')
    const refusal = refusalOf(status)
    if (refusal) throw refusal
    if (Array.isArray(body)) return body.includes(alias)
    throw new Failure(EXIT.unexpected, `answered HTTP ${status} and no list: check url`)
  }
  try {
    if (await isThere()) return true
    if (call.dryRun) {
      call.show(`make alias ${alias}, if the key may`)
      return true
    }
    const made = await api.ask(call, 'POST', '/api/firewall/alias/add_item', {
      alias: { enabled: '1', name: alias, type: 'external', description: 'fail2ban-perimeter' },
    })
    if (made.status === 403) return false
    await api.ask(call, 'POST', '/api/firewall/alias/reconfigure', {})
    if (!(await isThere())) {
      const why = api.harmless(JSON.stringify(made.body))
      throw new Failure(EXIT.refused, `it does not make the alias "${alias}": ${why}`)
    }
    say(`made the alias "${alias}"`)
    return true
  } finally {
    await api.close()
  }
}
