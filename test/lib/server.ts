import type { ChildProcess } from 'node:child_process'
import { writeFileSync } from 'node:fs'
import { resolve } from 'node:path'
import { after, before } from 'node:test'
import type { Ended } from '../../scripts/lib/run.ts'
import { openFail2ban, type PrivateFail2ban } from './private-fail2ban.ts'
import { openSandbox, type Sandbox } from './sandbox.ts'
import type { StandInSsh } from './standin-ssh.ts'

/** A server "web1" in a sandbox: our programs and its Fail2Ban are real, its firewalls stand in. */
export interface TestServer {
  /** Its jails are sshd, web and recidive, of which the first uses an action of ours. */
  readonly fail2ban: PrivateFail2ban
  config: string
  /** Its `state_dir`, which is made by the first that writes there. */
  state: string
  /** Runs one of our programs, such as `status`, in UTC. */
  run(program: string, ...args: string[]): Promise<Ended>
  /** Starts f2b-deliver, which goes on until it is killed. */
  deliver(): ChildProcess
}

const JAILS = `
[sshd]
bantime = -1
action = iptables-remote[port="ssh, 2222", protocol=tcp]
         fortigate
[web]
action = dummy
[recidive]
action = dummy
`

/**
 * For the tests of this file; it is there when they run.
 *
 * @param settings YAML: the targets, and what else is in its configuration
 */
export function useServer(ssh: StandInSsh, settings: string): TestServer {
  const config = `${ssh.folder}/config.yaml`
  const state = `${ssh.folder}/state`
  let box: Sandbox
  let fail2ban: PrivateFail2ban
  before(async () => {
    box = await openSandbox()
    fail2ban = await openFail2ban({ jails: JAILS, delivery: 'direct' })
    const ours = `owner: web1\nstate_dir: ${state}\nfail2ban:\n  socket: ${fail2ban.socket}\n`
    writeFileSync(config, ours + settings)
  })
  after(async () => {
    await fail2ban?.remove()
    await box.close()
  })
  return {
    ...{ config, state },
    get fail2ban() {
      return fail2ban
    },
    run(program, ...args) {
      const env = { ...process.env, PATH: ssh.path, TZ: 'UTC' }
      const words = [resolve(`dist/${program}.cjs`), '--config', config, ...args]
      return box.run(process.execPath, words, { env })
    },
    deliver() {
      const line = 'PATH="$1" exec "$2" "$3" --follow --config "$4" 2>/dev/null'
      const words = [ssh.path, process.execPath, resolve('dist/deliver.cjs'), config]
      // nsenter, which we can kill, passes no signal on; it ends when its child has closed its output.
      const end = ['--pdeathsig', 'TERM', 'sh', '-c', line, 'sh', ...words]
      return box.start('setpriv', end)
    },
  }
}
