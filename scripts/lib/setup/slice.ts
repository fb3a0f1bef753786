import { existsSync, mkdirSync, readdirSync, rmdirSync, rmSync } from 'node:fs'
import { dirname } from 'node:path'
import { ACCOUNT, call, uidOf } from './account.ts'
import type { Item } from './changes.ts'
import { textOf, writeAs } from './items.ts'

/**
 * A limit on all that servers have running here together. What a key starts, sudo's child too, is in
 * the slice of its account (user@.service(5)), so the machine itself never runs out of memory.
 */
export function sliceItem(): Item {
  const text = '# Part of fail2ban-perimeter\n[Slice]\nMemoryMax=50%\n'
  const path = async (): Promise<string> =>
    `/etc/systemd/system/user-${(await uidOf()) ?? 'none'}.slice.d/fail2ban-perimeter.conf`
  const reload = async (): Promise<void> => {
    if (existsSync('/run/systemd/system')) await call('systemctl', ['daemon-reload'])
  }
  return {
    name: `memory limit of user ${ACCOUNT}`,
    async look() {
      const found = textOf(await path())
      return found === undefined ? 'absent' : found === text ? 'same' : 'different'
    },
    async make() {
      const target = await path()
      mkdirSync(dirname(target), { recursive: true, mode: 0o755 })
      writeAs(target, text, 0o644)
      await reload()
    },
    async remove() {
      const target = await path()
      rmSync(target)
      if (readdirSync(dirname(target)).length === 0) rmdirSync(dirname(target))
      await reload()
    },
  }
}
