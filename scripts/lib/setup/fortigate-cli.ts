/** What must be known to print what an operator pastes on the device. */
export interface DeviceSide {
  /** How the device reaches the server: `https://192.0.2.10:5000`, with a proxy's path or not. */
  url: URL
  header: string
  token: string
  user: string
  pass: string
}

/** A trigger with the message id whose logs it posts. */
const TRIGGERS: [name: string, logid: number, about: string][] = [
  ['f2b sslvpn login failed', 39426, 'SSL-VPN logins'],
  ['f2b ipsec login failed', 37121, 'IPsec dial-up logins with XAuth (IKEv1)'],
  ['f2b ipsec eap login failed', 37128, 'IPsec dial-up logins with EAP (IKEv2)'],
  ['f2b ipsec phase1 error', 37124, 'IPsec, phase 1'],
  ['f2b ipsec phase2 error', 37125, 'IPsec, phase 2'],
  ['f2b admin login failed', 32002, "logins to the device's own administration"],
]

/**
 * The whole FortiOS side (7.2 and later; before, `http-headers` is a list of names, see the CLI
 * reference of the release). The body has single fields as JSON; the receiver takes the whole log
 * (`%%log%%`) as well.
 */
export function fortiosCli(side: DeviceSide): string {
  return [action(side), ...TRIGGERS.map(trigger), resource(side), POLICY].join('\n')
}

// The names last: what stands before them is the device's own, whatever somebody types as his.
const FIELDS = 'logid action status role exch remip srcip ui reason devname xauthuser user'.split(
  ' ',
)

function action({ url, header, token }: DeviceSide): string {
  const body = FIELDS.map((name) => `\\"${name}\\":\\"%%log.${name}%%\\"`).join(',')
  return `config system automation-action
    edit "f2b post failed login"
        set action-type webhook
        set protocol ${url.protocol.replace(':', '')}
        set method post
        set uri "${url.hostname.replace(/[[\]]/g, '')}${pathOf(url)}/receive-logs"
        set port ${portOf(url)}
        set minimum-interval 0
        set http-body "{${body}}"
        config http-headers
            edit 1
                set key "${header}"
                set value "${token}"
            next
            edit 2
                set key "Content-Type"
                set value "application/json"
            next
        end
    next
end
`
}

function trigger([name, logid, about]: (typeof TRIGGERS)[number]): string {
  return `# ${about}: leave it out if you do not want these
config system automation-trigger
    edit "${name}"
        set event-type event-log
        set logid ${logid}
    next
end
config system automation-stitch
    edit "${name}"
        set trigger "${name}"
        config actions
            edit 1
                set action "f2b post failed login"
                set required enable
            next
        end
    next
end
`
}

function resource({ url, user, pass }: DeviceSide): string {
  return `config system external-resource
    edit "Internal fail2ban List"
        set type address
        set resource "${url.origin}${pathOf(url)}/blocked-ips"
        set username "${user}"
        set password "${pass}"
        set refresh-rate 1
    next
end
`
}

const POLICY = `# Then use "Internal fail2ban List" as the source of a deny policy above all others, and of a
# local-in policy (or as negated source in the SSL-VPN settings), or nothing is blocked.`

function pathOf({ pathname }: URL): string {
  return pathname.replace(/\/+$/, '')
}

function portOf(url: URL): string {
  return url.port || (url.protocol === 'https:' ? '443' : '80')
}
