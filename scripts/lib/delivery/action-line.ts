import type { Action } from '../fail2ban.ts'
import type { Kind } from '../siblings.ts'

/** What an action line hands over for every ban of one family. */
export interface HandedOver {
  /** The address as it is written there: `<ip>`, or `<ip>/24`. */
  address: string
  name: string
  /** Undefined where the line does not say. */
  ports: string | undefined
  protocol: string | undefined
  /** How long it blocks, seconds; -1 is for ever, undefined is what Fail2Ban says. */
  seconds: number | undefined
  /** Whether it goes through the queue, so that the queue knows of each unban, too. */
  queued: boolean
}

/** Words of a shell that end a command. */
const SEPARATOR = /^[;&|()\n]+$/

/**
 * Reads the command that Fail2Ban would execute: whatever a jail or a `.local` file has made of our
 * action files, it says what a ban will be.
 *
 * @returns undefined if it is none that we know
 */
export function handedOver(
  kind: Kind,
  action: Action,
  family: 'inet4' | 'inet6',
): HandedOver | undefined {
  const commands = commandsIn(action.ban?.[family])
  const starts = commandsIn(action.start?.[family])
  const queued = queuedIn(kind, commands)
  const said = queued ?? directIn(kind, commands)
  if (!said) return undefined
  const { address, name, time = '<time>', bantime = '-1' } = said
  if (!address?.includes('<ip>') || name === undefined || name.includes('<')) return undefined
  if (time !== '<time>' || !/^(<bantime>|-1|\d{1,10})$/.test(bantime)) return undefined
  // What the ban leaves to the start of the jail.
  const start = starts.flatMap((words) => optionsOf(kind, words, 'start') ?? [])[0]
  const ports = said.ports ?? start?.get('port')
  const seconds = bantime === '<bantime>' ? undefined : Number(bantime)
  const protocol = said.protocol ?? start?.get('protocol')
  return { address, name, ports, protocol, seconds, queued: queued !== undefined }
}

interface Said {
  address: string | undefined
  name: string | undefined
  time: string | undefined
  bantime: string | undefined
  ports: string | undefined
  protocol: string | undefined
}

function commandsIn(words: string[] | null | undefined): string[][] {
  const commands: string[][] = [[]]
  for (const word of words ?? []) {
    if (SEPARATOR.test(word)) commands.push([])
    else commands.at(-1)?.push(word)
  }
  return commands
}

/** `queue=".../firewall"` and `set -- ban "<ip>" "sshd" "<time>" "<bantime>" "ssh" "tcp"`. */
function queuedIn(kind: Kind, commands: string[][]): Said | undefined {
  const isOurs = ([word = '']: string[]): boolean => {
    return word.startsWith('queue=') && word.endsWith(`/${kind.name}`)
  }
  const at = commands.findIndex(isOurs)
  const words = commands.slice(at + 1).find((one) => one.slice(0, 3).join(' ') === 'set -- ban')
  if (at < 0 || !words) return undefined
  const [address, name, time, bantime, ports, protocol] = words.slice(3)
  return { address, name, time, bantime, ports, protocol }
}

/** `f2b-firewall ban --ip="<ip>" --name="sshd" ...` or `banip "fail2ban-sshd" "<ip>" "ssh" "tcp" ...`. */
function directIn(kind: Kind, commands: string[][]): Said | undefined {
  for (const words of commands) {
    const options = optionsOf(kind, words, 'ban')
    if (options) {
      const [address, name] = [options.get('ip'), options.get('name')]
      const [time, bantime] = [options.get('time'), options.get('bantime')]
      return {
        ...{ address, name, time, bantime },
        ports: options.get('port'),
        protocol: options.get('protocol'),
      }
    }
    const at = words.findIndex((word) => kind.name === 'firewall' && /(^|\/)banip$/.test(word))
    if (at < 0) continue
    const [chain = '', address, ports, protocol, ...rest] = words.slice(at + 1)
    const given = readOptions(rest)
    const name = /^fail2ban-(.+)$/.exec(chain)?.[1]
    const [time, bantime] = [given.get('time'), given.get('bantime')]
    return { address, name, time, bantime, ports, protocol }
  }
  return undefined
}

/** The options of a call of ours with this verb. */
function optionsOf(kind: Kind, words: string[], verb: string): Map<string, string> | undefined {
  const at = words.findIndex((word, i) => kind.uses.test(`${word} `) && words[i + 1] === verb)
  return at < 0 ? undefined : readOptions(words.slice(at + 2))
}

/** `--ip=1.2.3.4` and `--ip 1.2.3.4`. */
function readOptions(words: string[]): Map<string, string> {
  const options = new Map<string, string>()
  words.forEach((word, i) => {
    const [, name = '', value] = /^--([a-z-]+)(?:=(.*))?$/s.exec(word) ?? []
    if (name) options.set(name, value ?? words[i + 1] ?? '')
  })
  return options
}
