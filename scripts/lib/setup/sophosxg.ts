import { type Options, textOption } from '../command.ts'
import { quote } from '../lease.ts'
import { type SophosXg, sophosxg } from '../settings/sophosxg.ts'
import { withClient } from '../sophosxg/client.ts'
import { sophosTarget } from '../sophosxg/target.ts'
import { APPLIANCE_OPTIONS, applianceHelp, type Kind, secretOf } from './appliance.ts'
import { ask, say } from './plan.ts'

/** The options that `f2b-setup sophosxg` has. */
export const SOPHOSXG_OPTIONS: Options = {
  ...APPLIANCE_OPTIONS,
  user: { type: 'string' },
  'pass-file': { type: 'string' },
  'iphost-prefix': { type: 'string' },
  'iphostgroup-name': { type: 'string' },
  mode: { type: 'string' },
}

/** What `--help` says about them. */
export const SOPHOSXG_HELP = `f2b-setup sophosxg
  --address HOST[:PORT] the firewall's web admin; port 4444 if left out
  --user NAME          the API account; asked for if left out
  --pass-file FILE     a file that holds its password; asked for if left out
${applianceHelp('firewall')}
  --iphost-prefix TEXT, --iphostgroup-name NAME
                       for the objects on the firewall; default f2b_ and
                       f2b_blockings
  --mode MODE          hosts (an object for each ban) | iplist (lists of 1,000)`

/** `f2b-setup sophosxg`: makes the groups. */
export const SOPHOSXG: Kind<SophosXg> = {
  name: 'sophosxg',
  action: 'sophosxg',
  schema: sophosxg,
  port: '4444',
  path: '/webconsole/APIController',
  seen: 'the firewall shows under Certificates > Certificates',
  secret: 'pass',

  async login(values) {
    const user = textOption(values, 'user') ?? (await ask('API account: ', '--user'))
    const typed = () => ask('Its password: ', '--pass-file', true)
    return { user, secret: await secretOf(values, 'pass-file', typed) }
  },

  keys(values, known) {
    const { iphost_prefix = 'f2b_', iphostgroup_name = 'f2b_blockings' } = known
    const mode = textOption(values, 'mode')
    return {
      iphost_prefix: textOption(values, 'iphost-prefix') ?? iphost_prefix,
      iphostgroup_name: textOption(values, 'iphostgroup-name') ?? iphostgroup_name,
      ...(mode !== undefined && { mode }),
    }
  },

  async tryOut(settings, { call }) {
    await withClient(settings, call, (client) => client.login())
    say(`logged in to ${settings.name} as ${settings.user}`)
    await sophosTarget(settings).start(call)
    const groups = [settings.iphostgroup_name, settings.iphostgroup_name_v6].map(quote)
    if (!call.dryRun) say(`the host groups ${groups.join(' and ')} are there`)
    return `Two things are left to do in the web console of ${settings.name}:
  1. Rules and policies > Firewall rules: a rule at the very top, action Drop, source zone WAN,
     source networks "${settings.iphostgroup_name}", everything else Any; and the same for IPv6
     with "${settings.iphostgroup_name_v6}".
  2. Backup & firmware > API (SFOS 22: Administration): leave no more addresses allowed than this
     server's; Profiles > Device access: no more than Objects and Network Read-write for
     "${settings.user}".`
  },
}
