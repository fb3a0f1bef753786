import type { ChildProcess } from 'node:child_process'
import { writeFileSync } from 'node:fs'
import { resolve } from 'node:path'
import { after, before } from 'node:test'
import type { Ended } from '../../scripts/lib/run.ts'
import { openSandbox, type Sandbox } from './sandbox.ts'
import { type StandInFail2Ban, standInFail2Ban } from './standin-fail2ban.ts'
import type { StandInSsh } from './standin-ssh.ts'

/** A server "web1" in a sandbox: our programs are real, its Fail2Ban and its firewalls stand in. */
export interface TestServer {
  fail2ban: StandInFail2Ban
  config: string
  /** Its `state_dir`, which is made by the first that writes there. */
  state: string
  /** Runs one of our programs, such as `status`, in UTC. */
  run(program: string, ...args: string[]): Promise<Ended>
  /** Starts f2b-deliver, which goes on until it is killed. */
  deliver(): ChildProcess
}

/**
 * For the tests of this file; it is there when they run.
 *
 * @param settings YAML: the targets, and what else is in its configuration
 */
export function useServer(ssh: StandInSsh, settings: string): TestServer {
  const fail2ban = standInFail2Ban()
  const config = `${ssh.folder}/config.yaml`
  const state = `${ssh.folder}/state`
  const ours = `owner: web1\nstate_dir: ${state}\nfail2ban:\n  client: ${fail2ban.client}\n`
  writeFileSync(config, ours + settings)
  let box: Sandbox
  before(async () => {
    box = await openSandbox()
  })
  after(() => box.close())
  return {
    ...{ fail2ban, config, state },
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
