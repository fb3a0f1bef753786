import {
  chmodSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  writeFileSync,
} from 'node:fs'
import { dirname } from 'node:path'
import { fileURLToPath } from 'node:url'
import {
  type Background,
  type ExecOptions,
  execIn,
  type Output,
  type SpawnOptions,
  spawnHolder,
  spawnIn,
} from './process.ts'
import { waitUntil } from './wait.ts'

/** Where init.py writes what comes to /dev/log. */
const SYSLOG_FILE = '/var/log/lab-syslog'

/**
 * A computer as far as a test can tell: its own processes, network, host name, and its own disk
 * (/etc /var /usr/local /root /home; the first three begin as the host's). /run and /tmp are empty
 * after each boot. What was installed on the host is installed here; nothing that is done here
 * reaches the host. There is no systemd; every command runs as root with a clean environment.
 */
export interface Machine {
  readonly name: string
  /** The host's number of a process in its namespaces. @throws Error while it is off */
  readonly pid: number
  /** Where the host has a path of this machine. */
  place(path: string): string
  /** Runs a command to its end; a failing one is an answer, not an error. */
  exec(argv: readonly string[], options?: ExecOptions): Promise<Output>
  /** Runs a step that must work. @returns its standard output @throws Error with its messages */
  run(argv: readonly string[], options?: ExecOptions): Promise<string>
  /** The same for a piece of shell, which ends at the first command that fails. */
  sh(script: string, options?: ExecOptions): Promise<string>
  /** Starts a command and leaves it running. */
  spawn(argv: readonly string[], options?: SpawnOptions): Promise<Background>
  /** Of a path without absolute links in it, as for `writeFile`: no process has to start for that. */
  readFile(path: string): Promise<string>
  /** Writes a file and the folders above it. Default mode 644, owner root:root. */
  writeFile(path: string, text: string, options?: FileOptions): Promise<void>
  /** What programs here gave to syslog so far, a line each, oldest first, across reboots. */
  journal(): Promise<string[]>
  /** Signals every process whose name begins so, and says how many they were. */
  signal(name: string, signal: NodeJS.Signals): number
  /** Pulls the plug: every process is killed, the kernel's memory is lost, the disk stays. */
  powerOff(): Promise<void>
  powerOn(options?: BootOptions): Promise<void>
  reboot(options?: BootOptions): Promise<void>
}

export interface FileOptions {
  mode?: string
  /** As chown takes it: `fail2ban:fail2ban`. */
  owner?: string
}

export interface BootOptions {
  /** What an init system would do before the network is up. */
  beforeNetwork?: () => Promise<unknown>
}

/** What a machine stands on. */
export interface Ground {
  /** Whose mount namespace holds the disks. */
  pid: number
  /** What stays visible although it lies in a folder that machines have of their own. */
  keep: readonly string[]
  /** Puts the cables in, after each boot. */
  connect(machine: Machine): Promise<void>
  disconnect(machine: Machine): Promise<void>
}

/** Builds and starts a machine. @param name also its host name */
export async function boot(name: string, ground: Ground): Promise<Machine> {
  let power: Awaited<ReturnType<typeof spawnHolder>> | undefined
  const machine: Machine = {
    name,
    get pid() {
      if (!power) throw new Error(`Machine "${name}" is off`)
      return power.pid
    },
    place: (path) => `/proc/${machine.pid}/root${path}`,
    exec: async (argv, options) => execIn(machine.pid, argv, options),
    run: async (argv, options) => succeed(name, argv, await machine.exec(argv, options)),
    sh: (script, options) => machine.run(['sh', '-euc', script], options),
    spawn: async (argv, options) => spawnIn(machine.pid, argv, options),
    readFile: async (path) => readFileSync(machine.place(path), 'utf8'),
    writeFile: (path, text, options) => writeFile(machine, path, text, options),
    journal: () => readJournal(machine),
    signal: (program, signal) => signalAll(machine.pid, program, signal),
    async powerOff() {
      if (!power) return
      await ground.disconnect(machine)
      await power.end()
      power = undefined
    },
    async powerOn({ beforeNetwork } = {}) {
      power ??= await startNamespaces(name, ground)
      await beforeNetwork?.()
      await ground.connect(machine)
    },
    async reboot(options) {
      await machine.powerOff()
      await machine.powerOn(options)
    },
  }
  try {
    await machine.powerOn()
  } catch (error) {
    await machine.powerOff()
    throw error
  }
  return machine
}

function startNamespaces(name: string, { pid, keep }: Ground) {
  const script = fileURLToPath(new URL('boot.sh', import.meta.url))
  const disks = ['nsenter', '-t', `${pid}`, '-m']
  const unshare = ['unshare', '-m', '-n', '-p', '-u', '--fork', '--kill-child', '--mount-proc']
  return spawnHolder([...disks, ...unshare, 'sh', script, name, ...keep])
}

function succeed(name: string, argv: readonly string[], { code, stdout, stderr }: Output): string {
  if (code === 0) return stdout
  throw new Error(`${name}: ${argv.join(' ')}: exit code ${code}\n${stdout}${stderr}`)
}

async function writeFile(machine: Machine, path: string, text: string, options: FileOptions = {}) {
  const { mode = '644', owner } = options
  const place = machine.place(path)
  mkdirSync(dirname(place), { recursive: true })
  writeFileSync(place, text)
  chmodSync(place, Number.parseInt(mode, 8))
  // Accounts have numbers of their own on each machine.
  if (owner)
    await machine.run(['sh', '-c', 'chown "$2" "$1" && chmod "$3" "$1"', 'sh', path, owner, mode])
}

let marks = 0

async function readJournal(machine: Machine): Promise<string[]> {
  // Messages keep their order, so when our own has arrived, all before it have.
  const mark = `lab-mark-${++marks}.`
  await machine.run(['logger', mark])
  let text = ''
  await waitUntil('a mark in the journal', async () => {
    text = await machine.readFile(SYSLOG_FILE)
    return text.includes(mark)
  })
  return text.split('\n').filter((line) => line && !line.includes('lab-mark-'))
}

function signalAll(pid: number, program: string, signal: NodeJS.Signals): number {
  const home = readlinkSync(`/proc/${pid}/ns/pid_for_children`)
  const found = readdirSync('/proc').filter((id) => /^\d+$/.test(id) && belongs(id, home, program))
  return found.filter((id) => killed(Number(id), signal)).length
}

function killed(id: number, signal: NodeJS.Signals): boolean {
  try {
    return process.kill(id, signal)
  } catch {
    return false // It ended meanwhile.
  }
}

function belongs(id: string, home: string, program: string): boolean {
  try {
    if (readlinkSync(`/proc/${id}/ns/pid`) !== home) return false
    return readFileSync(`/proc/${id}/comm`, 'utf8').startsWith(program)
  } catch {
    return false // It ended meanwhile.
  }
}
