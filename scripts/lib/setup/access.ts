import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { textOption, usageFailure, type Values } from '../command.ts'
import { EXIT, Failure } from '../failure.ts'
import { checkOwner } from '../lease.ts'
import { run } from '../run.ts'
import { ACCOUNT, account, HOME } from './account.ts'
import { apply, type Item, say } from './changes.ts'
import { file, folder, textOf, writeAs } from './items.ts'
import { type KeyLine, keyLines, withKey, withoutKey } from './keys.ts'
import { fromPackage, type Place } from './place.ts'

const KEYS = `${HOME}/.ssh/authorized_keys`
const SUDOERS = '/etc/sudoers.d/fail2ban-perimeter'

/** What lets servers in over SSH: an account, one line of sudo, and a key for each server. */
export async function access(place: Place, line: KeyLine | undefined): Promise<Item[]> {
  const path = place.at(KEYS)
  const sudoers = fromPackage(place, 'firewall-side/sudoers')
  if (!place.uninstall) await checkSudoers(sudoers)
  const text = textOf(path)
  const keys = line ? withKey(text, fromPackage(place, 'firewall-side/authorized_keys'), line) : ''
  return [
    ...(place.prefix ? [] : [account()]),
    folder(place.at(HOME)),
    folder(place.at(`${HOME}/.ssh`)),
    file(path, keys, 0o644, { note: line ? `owner ${line.owner}` : '' }),
    file(place.at(SUDOERS), sudoers, 0o440),
  ]
}

/** One bad line in that folder takes sudo away from everybody, so it is tried elsewhere first. */
async function checkSudoers(text: string): Promise<void> {
  const folder = mkdtempSync(join(tmpdir(), 'f2b-setup-'))
  try {
    writeFileSync(join(folder, 'sudoers'), text, { mode: 0o440 })
    const { code, stderr } = await run('visudo', ['-c', '-f', join(folder, 'sudoers')])
    if (code === 127) throw new Failure(EXIT.config, 'Cannot find visudo: install sudo')
    if (code !== 0) throw new Failure(EXIT.config, `visudo refuses our sudoers: ${stderr.trim()}`)
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
    remove: () => writeAs(path, withoutKey(text, owner), 0o644),
    unwanted: true,
  }
  await apply([item], place)
  if (!known) return
  say(
    `Its bans end by themselves. A session of it that is open stays: pkill -u ${ACCOUNT} ends all`,
  )
}
