import { readFileSync, writeFileSync } from 'node:fs'
import { openBench, PASS, SECRET } from '../lib/fortigate.ts'
import { openFail2Ban, withCommands } from '../lib/fortigate-jail.ts'
import { waitUntil } from '../lib/wait.ts'
import {
  adminFailed5,
  dialUpFailed,
  FortiGate,
  SSLVPN_FAILED,
  tunnelUp,
} from '../simulators/fortigate.ts'

const ATTACKER = '203.0.113.7'
const EMPLOYEE = '203.0.113.50'

/** The FortiGate document's story, with a real Fail2Ban and a simulated device. */
export async function demoFortigate(): Promise<void> {
  const bench = openBench()
  writeFileSync(bench.log, '')
  const jail = `[fortigate]
enabled = true
filter = fortigate
action = fortigate
logpath = ${bench.log}
backend = polling
maxretry = 3
bantime = 6
`
  const path = withCommands(bench.folder, ['f2b-fortigate'])
  const env = { ...process.env, PATH: path, FAIL2BAN_PERIMETER_CONFIG: bench.config }
  const fail2ban = openFail2Ban(jail, env)
  try {
    await fail2ban.client('start')
    await waitUntil('the list', async () => (await bench.cli('check')).code === 0)
    await bench.startFeed()
    const login = { user: 'fortigate', pass: PASS, secret: SECRET }
    await story(new FortiGate({ server: bench.url, ...login }), bench.list, bench.log)
  } finally {
    await fail2ban.close()
    await bench.close()
  }
}

async function story(device: FortiGate, list: string, log: string): Promise<void> {
  const tell = (text: string) => console.log(`  ${text}`)
  console.log('FortiGate: failed VPN logins become a threat feed')
  await device.post(SSLVPN_FAILED.v7({ remip: ATTACKER }), 'form')
  await device.post(dialUpFailed({ remip: ATTACKER, user: 'CORP\\anna"' }), 'fields')
  await device.post(adminFailed5({ remip: ATTACKER }))
  for (let i = 0; i < 3; i++) await device.post(tunnelUp({ remip: EMPLOYEE }))
  tell(`the device posted 3 failed logins from ${ATTACKER}: SSL-VPN, an IPsec dial-up`)
  tell(`of CORP\\anna", and an administrator; and 3 tunnels of ${EMPLOYEE}`)
  for (const line of readFileSync(log, 'utf8').trim().split('\n'))
    tell(`the receiver wrote: ${line}`)
  await waitUntil('the ban', () => readFileSync(list, 'utf8').includes(ATTACKER))
  tell(`Fail2Ban banned:    ${readFileSync(list, 'utf8').trim()}`)
  tell(`the device fetches: ${await device.pull()}, blocks ${ATTACKER}: ${device.blocks(ATTACKER)}`)
  tell(
    `                    blocks ${EMPLOYEE}: ${device.blocks(EMPLOYEE)}; again: ${await device.pull()}`,
  )
  await waitUntil('its end', async () => (await device.pull()) === 200)
  tell(`6 s later the ban is over: blocks ${ATTACKER}: ${device.blocks(ATTACKER)}`)
}
