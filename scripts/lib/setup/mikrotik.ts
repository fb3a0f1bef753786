import { createSocket } from 'node:dgram'
import { lookup } from 'node:dns/promises'
import { once } from 'node:events'
import { type Options, textOption, type Values } from '../command.ts'
import { mikrotikTargets } from '../mikrotik/target.ts'
import { hostOf } from '../settings/common.ts'
import { type Mikrotik, mikrotik } from '../settings/mikrotik.ts'
import { APPLIANCE_OPTIONS, applianceHelp, type Kind, secretOf, tryTarget } from './appliance.ts'
import { ask, say } from './plan.ts'

/** The options that `f2b-setup mikrotik` has. */
export const MIKROTIK_OPTIONS: Options = {
  ...APPLIANCE_OPTIONS,
  user: { type: 'string' },
  'pass-file': { type: 'string' },
  list: { type: 'string' },
  'list-v6': { type: 'string' },
}

export const MIKROTIK_HELP = `f2b-setup mikrotik
  --address HOST[:PORT] the router's service www-ssl; port 443 if left out
  --user NAME          the user for this server; default f2b
  --pass-file FILE     a file that holds its password; asked for if left out
${applianceHelp('router')}
  --list NAME, --list-v6 NAME
                       the address lists; default f2b`

/** `f2b-setup mikrotik`: makes nothing but the marker; what takes an administrator is printed. */
export const MIKROTIK: Kind<Mikrotik> = {
  name: 'mikrotik',
  action: 'mikrotik-perimeter',
  schema: mikrotik,
  port: '443',
  path: '',
  seen: 'the router shows as fingerprint (/certificate print detail)',
  secret: 'pass',

  async before(url, values) {
    const [user, address] = [userOf(values), await ownAddress(hostOf(url))]
    return `As an administrator of the router, unless that is done (${address} is this server's address):
  /certificate add name=www common-name=router key-usage=tls-server days-valid=3650
  /certificate sign www
  /ip service set www-ssl certificate=www disabled=no address=${address}
  /user group add name=f2b policy=read,write,rest-api
  /user add name=${user} group=f2b address=${address} password=PASSWORD
`
  },

  async login(values) {
    const typed = () => ask('Its password: ', '--pass-file', true)
    return { user: userOf(values), secret: await secretOf(values, 'pass-file', typed) }
  },

  keys(values, known) {
    const { list = 'f2b', list_v6 } = known
    const list6 = textOption(values, 'list-v6') ?? list_v6
    return {
      list: textOption(values, 'list') ?? list,
      ...(list6 !== undefined && { list_v6: list6 }),
    }
  },

  async tryOut(settings, trial) {
    const { name, user, list, list_v6 } = settings
    for (const router of mikrotikTargets([settings])) {
      await router.list(trial.call)
      await tryTarget(router, trial)
    }
    const may = trial.call.dryRun ? 'read' : 'write'
    say(`logged in to ${name} as ${user}, who may ${may} the address list ${list}`)
    return `Two rules are left to be made on ${name}, in front of all others in raw (where there are some
already: with place-before=0 at the end):
  /ip firewall raw add chain=prerouting src-address-list=${list} action=drop
  /ipv6 firewall raw add chain=prerouting src-address-list=${list_v6} action=drop`
  },
}

function userOf(values: Values): string {
  return textOption(values, 'user') ?? 'f2b'
}

/** The address that packets to a host leave from; nothing is sent. */
async function ownAddress(host: string): Promise<string> {
  try {
    const { address, family } = await lookup(host)
    const socket = createSocket(family === 6 ? 'udp6' : 'udp4')
    socket.connect(443, address)
    await once(socket, 'connect')
    const own = socket.address().address
    socket.close()
    return own
  } catch {
    return 'SERVER'
  }
}
