import { mkdtempSync, readdirSync, rmdirSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { parseAddress } from '../address.ts'
import { textOption, usageFailure, type Values } from '../command.ts'
import { EXIT, Failure } from '../failure.ts'
import { checkOwner, quote } from '../lease.ts'
import { $, command, tried } from './commands.ts'
import { CONFIG_DIR, type InstallTarget, install, type Resource, say } from './plan.ts'
import {
  type AccountSpec,
  account,
  accountEntry,
  accountOptions,
  endSessions,
  file,
  folder,
  fromPackage,
  textOf,
  writeAs,
} from './things.ts'

// What lets servers in over SSH: an account, one line of sudo, and a key for each server.

/** The account that all servers log in as. */
export const ACCOUNT = 'fail2ban'

/** Its home belongs to root, so that it can add neither keys nor start-up files for itself. */
const HOME = `${CONFIG_DIR}/ssh`
const KEYS = `${HOME}/.ssh/authorized_keys`
const SUDOERS = '/etc/sudoers.d/fail2ban-perimeter'

// sshd starts a forced command through the login shell: nologin would refuse it, and bash would
// read ~/.bashrc first.
const SPEC: AccountSpec = {
  name: ACCOUNT,
  home: HOME,
  shell: '/bin/sh',
  password: '*',
  // It may be another's: of the document that this follows, for instance.
  isOurs: ({ home }) => home === HOME,
  remedy: `take its sudo rights away and remove it (userdel ${ACCOUNT}) or hand it over (usermod --home ${HOME} ${ACCOUNT})`,
}

/** How to make the account by hand, for `--prefix`. */
export const USERADD = `useradd --system --no-create-home ${accountOptions(SPEC).join(' ').replace('*', "'*'")} ${ACCOUNT}`

/** A line of the firewall's authorized_keys that f2b-setup wrote. */
export interface KeyLine {
  owner: string
  /** Type and base64, without the comment. */
  key: string
  /** The addresses and ranges that the key may come from; empty means anywhere. */
  from: string[]
}

/** Bytes of the longest public key and its comment that anybody has. */
const LARGEST_KEY = 16_384

// No security keys (sk-): they want to be touched, and nobody is there.
const PUBLIC_KEY =
  /^((?:ssh-ed25519|ssh-rsa|ecdsa-sha2-nistp(?:256|384|521)) [A-Za-z0-9+/]{40,}={0,3})(?: [ -~]*)?$/
const OUR_LINE =
  /^restrict,(?:from="([^"]*)",)?command="[^\n]*\/gate ([A-Za-z0-9][A-Za-z0-9_.-]*)" (\S+ \S+)/

/** What lets servers in over SSH. */
export async function access(
  target: InstallTarget,
  line: KeyLine | undefined,
  systemd: boolean,
): Promise<Resource[]> {
  const path = target.at(KEYS)
  const whole = fromPackage(target, 'firewall-side/sudoers')
  const sudoers = target.uninstall ? whole : await checkedSudoers(whole)
  const template = fromPackage(target, 'firewall-side/authorized_keys')
  const keys = line ? withKey(textOf(path), template, line) : ''
  return [
    ...(target.prefix ? [] : [account(SPEC)]),
    ...(target.prefix || !systemd ? [] : [memoryLimit(target)]),
    folder(target.at(HOME)),
    folder(target.at(`${HOME}/.ssh`)),
    file(path, keys, 0o644, { note: line ? `owner ${line.owner}` : '' }),
    file(target.at(SUDOERS), sudoers, 0o440),
  ]
}

/** So that the machine itself never runs out of memory. The slice has the number of the account. */
function memoryLimit(target: InstallTarget): Resource {
  const text = fromPackage(target, 'firewall-side/user.slice.conf')
  const one = async (): Promise<Resource> => {
    const uid = (await accountEntry(ACCOUNT))?.uid ?? 'none'
    return file(`/etc/systemd/system/user-${uid}.slice.d/fail2ban-perimeter.conf`, text)
  }
  const reload = async (): Promise<void> => {
    if (target.live) await $`systemctl daemon-reload`
  }
  return {
    name: `memory limit of user ${ACCOUNT}`,
    state: async () => (await one()).state(),
    async apply() {
      await (await one()).apply?.()
      await reload()
    },
    async undo() {
      const { name, undo } = await one()
      undo()
      if (readdirSync(dirname(name)).length === 0) rmdirSync(dirname(name))
      await reload()
    },
  }
}

/** Where the key of an owner may come from so far: a setup that does not say leaves it so. */
export function knownFrom(target: InstallTarget, owner: string): string[] {
  const from = knownLine(target, owner)?.from ?? []
  if (from.length > 0) {
    say(
      `note: the key of ${owner} may still come from ${from.join(', ')} only (--from any lifts that)`,
    )
  }
  return from
}

/** An owner's line in the keys file, as it is now. */
export function knownLine(target: InstallTarget, owner: string): KeyLine | undefined {
  return keyLines(textOf(target.at(KEYS)) ?? '').find((line) => line.owner === owner)
}

/** sudo-rs has neither of the settings that we turn off, and may not know their names. */
async function checkedSudoers(text: string): Promise<string> {
  const plain = text.replace(/^Defaults!.*\n/m, '')
  const refused = await whyRefused(text)
  if (refused === undefined) return text
  if ((await whyRefused(plain)) === undefined) return plain
  throw new Failure(EXIT.config, `visudo refuses our sudoers: ${refused}`)
}

/** One bad line in that folder takes sudo away from all users, so it is tried elsewhere first. */
async function whyRefused(text: string): Promise<string | undefined> {
  const work = mkdtempSync(join(tmpdir(), 'f2b-setup-'))
  try {
    writeFileSync(join(work, 'sudoers'), text, { mode: 0o440 })
    const { code, stderr } = await tried`visudo -c -f ${join(work, 'sudoers')}`
    if (code === 127) throw new Failure(EXIT.config, 'Cannot find visudo: install sudo')
    return code === 0 ? undefined : stderr.trim()
  } finally {
    rmSync(work, { recursive: true })
  }
}

/** `--remove-owner`: one line of the keys file, and nothing else. */
export async function removeOwner(target: InstallTarget, values: Values): Promise<void> {
  const owner = textOption(values, 'owner')
  if (owner === undefined) throw usageFailure('Missing option --owner')
  checkOwner(owner)
  const path = target.at(KEYS)
  const text = textOf(path) ?? ''
  const known = keyLines(text).some((line) => line.owner === owner)
  const line: Resource = {
    name: `owner ${owner} in ${path}`,
    state: () => (known ? 'same' : 'absent'),
    async undo() {
      writeAs(path, withoutKey(text, owner), 0o644)
      if (!target.prefix) await endSessions(ACCOUNT)
    },
    unwanted: true,
  }
  await install([line], target)
  if (known)
    say('Its bans end by themselves. All sessions were ended; other servers connect again.')
}

/**
 * Reads a file that holds exactly one public key.
 *
 * @returns its type and base64; the comment is left behind, since anybody may have written it
 * @throws Failure 65 for anything else, a private key above all
 */
export async function readPublicKey(path: string): Promise<string> {
  const stat = statSync(path, { throwIfNoEntry: false })
  if (!stat) throw badKey(path, 'no such file')
  // A pipe or a device may be read without end.
  if (!stat.isFile()) throw badKey(path, 'it is not a regular file')
  if (stat.size > LARGEST_KEY) throw badKey(path, 'it is too large for a public key')
  const text = textOf(path) ?? ''
  if (/PRIVATE KEY/.test(text)) {
    throw badKey(path, 'it is a private key, which belongs on the server only: give the .pub file')
  }
  const lines = text.replace(/\n$/, '').split('\n')
  if (lines.length !== 1) throw badKey(path, `it has ${lines.length} lines, not one public key`)
  const key = PUBLIC_KEY.exec(lines[0]?.replace(/\r$/, '') ?? '')?.[1]
  if (!key) throw badKey(path, 'it is not a public key of type ssh-ed25519, ecdsa or ssh-rsa')
  await fingerprint(key).catch(() => {
    throw badKey(path, 'ssh-keygen does not accept it')
  })
  return key
}

/** Bits, SHA256 fingerprint, comment (if any) and type, as `ssh-keygen -l` prints them. */
export async function fingerprint(key: string): Promise<string> {
  const { code, stdout, stderr } = await command({ input: `${key}\n` })`ssh-keygen -l -f -`
  if (code === 127) throw new Failure(EXIT.config, 'Cannot run ssh-keygen: install openssh-client')
  if (code !== 0) throw new Failure(EXIT.input, `Cannot read the key: ${stderr.trim()}`)
  return stdout.trim().replace(' no comment', '')
}

/**
 * Reads `--from`: addresses and ranges, in the form that sshd understands, or `any`.
 *
 * @returns none for `any`, undefined if nothing is given
 * @throws Failure 65
 */
export function readFrom(values: string[]): string[] | undefined {
  if (values.length === 0) return undefined
  if (values.every((value) => value === 'any')) return []
  const texts = new Set(values.map((value) => parseAddress(value).text))
  for (const text of texts) {
    // It would forbid nothing here, and as part of the never-ban list it would forbid every ban.
    if (text.endsWith('/0')) {
      throw new Failure(EXIT.input, `Cannot use ${quote(text)} for --from: it means everybody`)
    }
  }
  return [...texts]
}

/** The lines that f2b-setup wrote; others are skipped. */
export function keyLines(text: string): KeyLine[] {
  return text.split('\n').flatMap((line) => {
    const [, from, owner, key] = OUR_LINE.exec(line) ?? []
    return owner && key ? [{ owner, key, from: from ? from.split(',') : [] }] : []
  })
}

/**
 * The keys file with this owner's line in it, in the place of an older one; everything else stays.
 *
 * @param template remarks and one line with `@FROM@`, `@OWNER@` and `@KEY@`
 * @throws Failure 65 if another owner has that key: the key is what tells the owners apart
 */
export function withKey(text: string | undefined, template: string, line: KeyLine): string {
  const [wanted = '', ...remarks] = template.trimEnd().split('\n').toReversed()
  const lines = (text ?? `${remarks.toReversed().join('\n')}\n`).replace(/\n$/, '').split('\n')
  const other = keyLines(lines.join('\n')).find((l) => l.key === line.key && l.owner !== line.owner)
  if (other) {
    throw new Failure(
      EXIT.input,
      `Cannot add owner "${line.owner}": the key is that of "${other.owner}", and each server needs its own`,
    )
  }
  const made = render(wanted, line)
  const old = lines.findIndex((l) => isOf(l, line.owner))
  if (old < 0) return `${[...lines, made].join('\n')}\n`
  return `${lines.flatMap((l, i) => (i === old ? [made] : isOf(l, line.owner) ? [] : [l])).join('\n')}\n`
}

/** The keys file without this owner's line. */
export function withoutKey(text: string, owner: string): string {
  const lines = text.split('\n')
  return lines.filter((line) => !isOf(line, owner)).join('\n')
}

function isOf(line: string, owner: string): boolean {
  return keyLines(line)[0]?.owner === owner
}

function render(template: string, { owner, key, from }: KeyLine): string {
  const values: Record<string, string> = {
    '@FROM@': from.length > 0 ? `from="${from.join(',')}",` : '',
    '@OWNER@': owner,
    '@KEY@': key,
  }
  return template.replace(/@[A-Z]+@/g, (word) => values[word] ?? word)
}

function badKey(path: string, why: string): Failure {
  return new Failure(EXIT.input, `Cannot use key file ${quote(path)}: ${why}`)
}
