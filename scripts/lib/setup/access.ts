import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { textOption, usageFailure, type Values } from '../command.ts'
import { EXIT, Failure } from '../failure.ts'
import { checkOwner } from '../lease.ts'
import { run } from '../run.ts'
import { account, endSessions, HOME } from './account.ts'
import { apply, type Item, say } from './changes.ts'
import { file, folder, textOf, writeAs } from './items.ts'
import { type KeyLine, keyLines, withKey, withoutKey } from './keys.ts'
import { fromPackage, type Place } from './place.ts'
import { sliceItem } from './slice.ts'

const KEYS = `${HOME}/.ssh/authorized_keys`
const SUDOERS = '/etc/sudoers.d/fail2ban-perimeter'

/** What lets servers in over SSH: an account, one line of sudo, and a key for each server. */
export async function access(
  place: Place,
  line: KeyLine | undefined,
  systemd: boolean,
): Promise<Item[]> {
  const path = place.at(KEYS)
  const whole = fromPackage(place, 'firewall-side/sudoers')
  const sudoers = place.uninstall ? whole : await checkedSudoers(whole)
  const text = textOf(path)
  const keys = line ? withKey(text, fromPackage(place, 'firewall-side/authorized_keys'), line) : ''
  return [
    ...(place.prefix ? [] : [account()]),
    ...(place.prefix || !systemd ? [] : [sliceItem()]),
    folder(place.at(HOME)),
    folder(place.at(`${HOME}/.ssh`)),
    file(path, keys, 0o644, { note: line ? `owner ${line.owner}` : '' }),
    file(place.at(SUDOERS), sudoers, 0o440),
  ]
}

/** Where the key of an owner may come from so far: a setup that does not say leaves it so. */
export function knownFrom(place: Place, owner: string): string[] {
  const from = knownLine(place, owner)?.from ?? []
  if (from.length > 0) {
    say(
      `note: the key of ${owner} may still come from ${from.join(', ')} only (--from any lifts that)`,
    )
  }
  return from
}

/** An owner's line in the keys file, as it is now. */
export function knownLine(place: Place, owner: string): KeyLine | undefined {
  return keyLines(textOf(place.at(KEYS)) ?? '').find((line) => line.owner === owner)
}

/** sudo-rs has neither of the settings that we turn off, and may not know their names. */
async function checkedSudoers(text: string): Promise<string> {
  const plain = text.replace(/^Defaults!.*\n/m, '')
  const refused = await whyRefused(text)
  if (refused === undefined) return text
  if ((await whyRefused(plain)) === undefined) return plain
  throw new Failure(EXIT.config, `visudo refuses our sudoers: ${refused}`)
}

/** One bad line in that folder takes sudo away from everybody, so it is tried elsewhere first. */
async function whyRefused(text: string): Promise<string | undefined> {
  const folder = mkdtempSync(join(tmpdir(), 'f2b-setup-'))
  try {
    writeFileSync(join(folder, 'sudoers'), text, { mode: 0o440 })
    const { code, stderr } = await run('visudo', ['-c', '-f', join(folder, 'sudoers')])
    if (code === 127) throw new Failure(EXIT.config, 'Cannot find visudo: install sudo')
    return code === 0 ? undefined : stderr.trim()
  } finally {
    rmSync(folder, { recursive: true })
  }
}

/** `--remove-owner`: one line of the keys file, and nothing else. */
export async function removeOwner(place: Place, values: Values): Promise<void> {
  const owner = textOption(values, 'owner')
  if (owner === undefined) throw usageFailure('Missing option --owner')
  checkOwner(owner)
  const path = place.at(KEYS)
  const text = textOf(path) ?? ''
  const known = keyLines(text).some((line) => line.owner === owner)
  const item: Item = {
    name: `owner ${owner} in ${path}`,
    look: () => (known ? 'same' : 'absent'),
    make() {},
    async remove() {
      writeAs(path, withoutKey(text, owner), 0o644)
      if (!place.prefix) await endSessions()
    },
    unwanted: true,
  }
  await apply([item], place)
  if (known)
    say('Its bans end by themselves. All sessions were ended; other servers connect again.')
}
